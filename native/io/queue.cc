#include "io/queue.h"

#include <limits.h>

#include <algorithm>
#include <cerrno>

namespace qb {
namespace {

// How often in a row a request is asked again after EAGAIN. Files that are not opened O_NONBLOCK
// give it only when the kernel is short of requests or memory; one that says nothing else is
// broken.
constexpr unsigned kMostTries = 100;

// Fills `out` with the rest of `iov` after its first `skip` bytes, as much as one request
// takes.
void remaining(const std::vector<iovec>& iov, uint64_t skip, std::vector<iovec>& out) {
  out.clear();
  for (const iovec& part : iov) {
    if (out.size() == IOV_MAX) break;
    if (skip >= part.iov_len) {
      skip -= part.iov_len;
      continue;
    }
    out.push_back({static_cast<uint8_t*>(part.iov_base) + skip, part.iov_len - skip});
    skip = 0;
  }
}

}  // namespace

Queue::Queue(Engine& engine, unsigned depth) : engine_(engine), slots_(std::max(depth, 1U)) {
  for (Slot& slot : slots_) free_.push_back(&slot);
}

// Noexcept like every destructor: an engine that cannot even be waited for would leave the kernel
// writing into freed memory, so an exception here ends the process.
Queue::~Queue() {
  while (active_ > 0) {
    reaped_.clear();
    engine_.reap(reaped_, true);
    active_ -= reaped_.size();
  }
}

void Queue::submit(Transfer* transfer) {
  transfer->length = 0;
  for (const iovec& part : transfer->iov) transfer->length += part.iov_len;
  transfer->done = 0;
  transfer->error = 0;
  waiting_.push_back(transfer);
  start_waiting();
}

void Queue::reap(std::vector<Transfer*>& done, bool wait,
                 std::optional<Engine::Clock::time_point> deadline) {
  if (stopped_ && !waiting_.empty()) {
    give_back_waiting(done);
    wait = false;
  }
  reaped_.clear();
  engine_.reap(reaped_, wait, deadline);
  for (Request* request : reaped_) {
    Slot& slot = *static_cast<Slot*>(request->tag);
    if (!finish_step(slot)) {
      if (!stopped_) {
        engine_.submit(&slot.request);
        continue;
      }
      slot.transfer->error = ECANCELED;
    }
    done.push_back(slot.transfer);
    free_.push_back(&slot);
    --active_;
  }
  start_waiting();
}

void Queue::give_back_waiting(std::vector<Transfer*>& done) {
  for (Transfer* transfer : waiting_) {
    transfer->error = ECANCELED;
    done.push_back(transfer);
  }
  waiting_.clear();
}

void Queue::start_waiting() {
  while (!stopped_ && !waiting_.empty() && !free_.empty()) {
    Slot& slot = *free_.back();
    slot.transfer = waiting_.front();
    slot.tries = 0;
    prepare(slot, 0);
    engine_.submit(&slot.request);
    free_.pop_back();
    waiting_.pop_front();
    ++active_;
  }
}

// Makes the slot's request the part of its transfer that begins `start` bytes in.
void Queue::prepare(Slot& slot, uint64_t start) {
  const Transfer& transfer = *slot.transfer;
  slot.start = start;
  slot.request.op = transfer.op;
  slot.request.fd = transfer.fd;
  slot.request.offset = transfer.offset + start;
  slot.request.tag = &slot;
  remaining(transfer.iov, start, slot.request.iov);
}

// Takes the request's result into its transfer. True when the transfer is at its end; otherwise the
// request was made ready to go on with.
bool Queue::finish_step(Slot& slot) {
  Transfer& transfer = *slot.transfer;
  const int64_t result = slot.request.result;
  if (result == -EINTR) return false;
  if (result == -EAGAIN && ++slot.tries < kMostTries) return false;
  if (result < 0) {
    transfer.error = static_cast<int>(-result);
    return true;
  }
  slot.tries = 0;
  const uint64_t reached = slot.start + static_cast<uint64_t>(result);
  const bool further = reached > transfer.done;
  transfer.done = std::max(transfer.done, reached);
  if (transfer.done >= transfer.length) return true;
  // No further than before, though asked again from an aligned place: that is the end of the file.
  if (!further) {
    if (transfer.op == Op::kWrite) transfer.error = EIO;
    return true;
  }
  prepare(slot, transfer.done - transfer.done % transfer.alignment);
  return false;
}

}  // namespace qb
