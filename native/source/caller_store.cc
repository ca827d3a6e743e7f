#include "source/caller_store.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace qb {

void CallerStore::submit(Transfer* transfer) {
  if (transfer->op != Op::kZero) {
    transfer->length = transfer->iov.empty() ? 0 : transfer->iov[0].iov_len;
  }
  transfer->done = 0;
  transfer->error = 0;
  {
    std::lock_guard lock(mutex_);
    uint64_t id = next_id_++;
    waiting_.emplace(id, transfer);
    wanted_.push_back({id, transfer->op, transfer->offset, transfer->length});
  }
  on_wanted_();
}

void CallerStore::collect(std::vector<Transfer*>& done) {
  bool more = false;
  {
    std::lock_guard lock(mutex_);
    // Completed requests allow others.
    more = !done_.empty() && !wanted_.empty();
    done.insert(done.end(), done_.begin(), done_.end());
    done_.clear();
  }
  if (more) on_wanted_();
}

size_t CallerStore::in_flight() const {
  std::lock_guard lock(mutex_);
  return waiting_.size() + taken_.size() + done_.size();
}

void CallerStore::close() {
  std::lock_guard lock(mutex_);
  wanted_.clear();
  waiting_.clear();
  taken_.clear();
  done_.clear();
}

std::vector<CallerRequest> CallerStore::take() {
  std::lock_guard lock(mutex_);
  std::vector<CallerRequest> requests;
  while (!wanted_.empty() && taken_.size() < most_) {
    requests.push_back(wanted_.front());
    wanted_.pop_front();
    taken_.insert(waiting_.extract(requests.back().id));
  }
  return requests;
}

// Under the lock, as all that touches the memory: close() waits for that.
bool CallerStore::copy_bytes(uint64_t id, uint8_t* into) const {
  std::lock_guard lock(mutex_);
  auto found = taken_.find(id);
  if (found == taken_.end()) return false;
  const Transfer& write = *found->second;
  memcpy(into, write.iov[0].iov_base, write.length);
  return true;
}

void CallerStore::finish(uint64_t id, const std::function<void(Transfer&)>& how) {
  {
    std::lock_guard lock(mutex_);
    auto found = taken_.find(id);
    if (found == taken_.end()) return;
    how(*found->second);
    done_.push_back(found->second);
    taken_.erase(found);
  }
  on_completed_();
}

void CallerStore::complete_read(uint64_t id, const uint8_t* bytes, size_t size) {
  finish(id, [&](Transfer& transfer) {
    if (size != transfer.length) {
      transfer.error = EIO;
      return;
    }
    memcpy(transfer.iov[0].iov_base, bytes, size);
    transfer.done = size;
  });
}

void CallerStore::complete(uint64_t id) {
  finish(id, [](Transfer& transfer) { transfer.done = transfer.length; });
}

void CallerStore::fail(uint64_t id, int errnum) {
  finish(id, [&](Transfer& transfer) { transfer.error = errnum; });
}

}  // namespace qb
