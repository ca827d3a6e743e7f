// Transfers of any size on an Engine: short ones go on, more than the depth wait for their turn.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "io/engine.h"

namespace qb {

// One read or write of a range (or a sync), brought to its end however the kernel cuts it. A plain
// record: fill the first part, hand it to Queue::submit() and leave it and its memory alone until
// Queue::reap() gives it back. May then be used again.
struct Transfer {
  Op op = Op::kRead;
  int fd = -1;
  uint64_t offset = 0;  // bytes
  // Any number of them; empty for kSync and kZero; never changed by the queue.
  std::vector<iovec> iov = {};
  // Alignment of the file's offsets, in bytes: after a short transfer go on from a multiple of it
  // (O_DIRECT). `offset` and each iov's length, except the last of a read, must be multiples too.
  uint64_t alignment = 1;
  void* tag = nullptr;  // the submitter's

  // Set by the queue, but that the submitter of a kZero says its length.
  uint64_t length = 0;  // sum of iov, bytes
  uint64_t done = 0;    // bytes transferred from the start; less than `length` with error 0 means
                        // that a read met the end of the file, the rest of iov being untouched
  int error = 0;        // errno, 0 when fine
};

// Thread-safety: that of the engine, one thread; wake() it through Engine::wake().
class Queue {
 public:
  // `depth`: maximum requests with the engine at once, at most the depth it was made for.
  // The queue must be the engine's only user and end before it.
  Queue(Engine& engine, unsigned depth);
  // Drops requests that wait for their turn, and waits until the kernel is done with the rest, so
  // that buffers declared before the queue may be freed after it.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Takes a transfer; never blocks. Beyond the depth it waits inside, first come first served.
  void submit(Transfer* transfer);
  // Appends finished transfers to `done`. When `wait`, blocks until something happens: a transfer
  // was finished or went on after a short step, Engine::wake(), or `deadline`. It may therefore
  // come back empty-handed: loop on your own condition. Throws Error when the engine itself fails.
  void reap(std::vector<Transfer*>& done, bool wait,
            std::optional<Engine::Clock::time_point> deadline = std::nullopt);
  // Hands nothing more to the engine: transfers that wait for their turn, or would go on after a
  // short step, come back from reap() with ECANCELED; requests with the engine complete as always.
  void stop() { stopped_ = true; }
  // Transfers submitted and not yet reaped, those waiting included.
  size_t in_flight() const { return active_ + waiting_.size(); }

 private:
  // A place with the engine: the request and how far its transfer had got when it was made.
  struct Slot {
    Request request;
    Transfer* transfer = nullptr;
    uint64_t start = 0;  // bytes into the transfer where `request` begins
    unsigned tries = 0;  // EAGAINs in a row
  };

  void start_waiting();
  void give_back_waiting(std::vector<Transfer*>& done);
  static void prepare(Slot& slot, uint64_t start);
  static bool finish_step(Slot& slot);

  Engine& engine_;
  std::vector<Slot> slots_;
  std::vector<Slot*> free_;
  std::deque<Transfer*> waiting_;
  std::vector<Request*> reaped_;
  size_t active_ = 0;
  bool stopped_ = false;
};

}  // namespace qb
