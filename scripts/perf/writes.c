/*
 * Writes 4 KiB here and there to an NBD export, one after the other as a guest would, until it gets
 * SIGTERM. Says of each write when it began and how long it took, nanoseconds of CLOCK_MONOTONIC.
 *
 *   writes URI RATE
 *
 * RATE is the most writes a second; 0: as fast as they go.
 */
#define _POSIX_C_SOURCE 200112L
#include <inttypes.h>
#include <libnbd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCK = 4096 };

static volatile sig_atomic_t is_over;

static void end(int number) {
  (void)number;
  is_over = 1;
}

static void die(const char* what) {
  fprintf(stderr, "writes: %s: %s\n", what, nbd_get_error());
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void wait_until(uint64_t due) {
  struct timespec const time = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

/* xorshift64 */
static uint64_t next(uint64_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  struct sigaction action = {.sa_handler = end};
  sigaction(SIGTERM, &action, NULL);
  struct nbd_handle* nbd = nbd_create();
  if (!nbd || nbd_connect_uri(nbd, argv[1])) die("connect");
  uint64_t const blocks = (uint64_t)nbd_get_size(nbd) / BLOCK;
  uint64_t const rate = strtoull(argv[2], NULL, 10);
  uint64_t const start = now();
  uint64_t state = 1;
  uint64_t buffer[BLOCK / sizeof(uint64_t)];
  for (uint64_t count = 0; !is_over; count++) {
    if (rate > 0) wait_until(start + count * 1000000000u / rate);
    for (size_t i = 0; i < BLOCK / sizeof(uint64_t); i++) buffer[i] = next(&state);
    uint64_t const offset = next(&state) % blocks * BLOCK;
    uint64_t const begun = now();
    if (nbd_pwrite(nbd, buffer, BLOCK, offset, 0)) die("write");
    printf("%" PRIu64 " %" PRIu64 "\n", begun, now() - begun);
  }
  nbd_close(nbd);
  return 0;
}
