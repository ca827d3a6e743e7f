/*
 * Reads, writes or zeroes granules of an NBD export, over several connections with many requests
 * in flight each: how fast libnbd alone is, and a quick way to change a disk here and there.
 *
 *   granules read|write|zero URI LENGTH CONNECTIONS REQUESTS LIST
 *
 * LIST is a file of offsets, 64 bits each in the machine's own order, taken in that order. What is
 * read goes nowhere. What is written comes from stdin, LENGTH bytes an offset.
 */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ = 'r', WRITE = 'w', ZERO = 'z' };

static int operation;
static const char* uri;
static size_t length;
static size_t requests;
static FILE* list;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* One connection: the buffers that no request uses are the first `idle` ones. */
struct worker {
  pthread_t thread;
  char** buffers;
  size_t idle;
};

struct request {
  struct worker* worker;
  char* buffer;
};

static void die(const char* what, const char* why) {
  fprintf(stderr, "granules: %s: %s\n", what, why);
  exit(1);
}

static void* allocate(size_t count, size_t size) {
  void* memory = calloc(count, size);
  if (!memory) die("memory", strerror(errno));
  return memory;
}

/* Takes the next offset and, to write, what belongs there. */
static int take(uint64_t* offset, char* buffer) {
  pthread_mutex_lock(&turn);
  int found = fread(offset, sizeof *offset, 1, list) == 1;
  if (found && operation == WRITE && fread(buffer, length, 1, stdin) != 1)
    die("stdin", "too short");
  pthread_mutex_unlock(&turn);
  return found;
}

static int finish(void* data, int* error) {
  struct request* request = data;
  if (*error) die(uri, strerror(*error));
  request->worker->buffers[request->worker->idle++] = request->buffer;
  free(request);
  return 1; /* retires the command */
}

static int64_t start(struct nbd_handle* nbd, struct worker* worker, uint64_t offset) {
  struct request* request = allocate(1, sizeof *request);
  request->worker = worker;
  request->buffer = worker->buffers[--worker->idle];
  nbd_completion_callback done = {.callback = finish, .user_data = request};
  switch (operation) {
    case READ:
      return nbd_aio_pread(nbd, request->buffer, length, offset, done, 0);
    case WRITE:
      return nbd_aio_pwrite(nbd, request->buffer, length, offset, done, 0);
    default:
      return nbd_aio_zero(nbd, length, offset, done, 0);
  }
}

static void* work(void* data) {
  struct worker* worker = data;
  struct nbd_handle* nbd = nbd_create();
  if (!nbd || nbd_connect_uri(nbd, uri) < 0) die(uri, nbd_get_error());
  uint64_t offset;
  for (;;) {
    while (worker->idle > 0 && take(&offset, worker->buffers[worker->idle - 1])) {
      if (start(nbd, worker, offset) < 0) die(uri, nbd_get_error());
    }
    if (worker->idle == requests) break;
    if (nbd_poll(nbd, -1) < 0) die(uri, nbd_get_error());
  }
  if (operation != READ && nbd_flush(nbd, 0) < 0) die(uri, nbd_get_error());
  if (nbd_shutdown(nbd, 0) < 0) die(uri, nbd_get_error());
  nbd_close(nbd);
  return NULL;
}

int main(int count, char** arguments) {
  if (count != 7) die("usage", "read|write|zero URI LENGTH CONNECTIONS REQUESTS LIST");
  operation = arguments[1][0];
  uri = arguments[2];
  length = strtoul(arguments[3], NULL, 10);
  size_t connections = strtoul(arguments[4], NULL, 10);
  requests = strtoul(arguments[5], NULL, 10);
  list = fopen(arguments[6], "rb");
  if (!list) die(arguments[6], strerror(errno));

  struct worker* workers = allocate(connections, sizeof *workers);
  for (size_t i = 0; i < connections; i++) {
    workers[i].buffers = allocate(requests, sizeof *workers[i].buffers);
    while (workers[i].idle < requests) workers[i].buffers[workers[i].idle++] = allocate(1, length);
    if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) die("thread", "not started");
  }
  for (size_t i = 0; i < connections; i++) pthread_join(workers[i].thread, NULL);
  return 0;
}
