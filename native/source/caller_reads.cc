#include "source/caller_reads.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace qb {

void CallerReads::submit(Transfer* transfer) {
  transfer->length = transfer->iov[0].iov_len;
  transfer->done = 0;
  transfer->error = 0;
  {
    std::lock_guard lock(mutex_);
    uint64_t id = next_id_++;
    waiting_.emplace(id, transfer);
    wanted_.push_back({id, transfer->offset, transfer->length});
  }
  on_wanted_();
}

void CallerReads::collect(std::vector<Transfer*>& done) {
  std::lock_guard lock(mutex_);
  done.insert(done.end(), done_.begin(), done_.end());
  done_.clear();
}

size_t CallerReads::in_flight() const {
  std::lock_guard lock(mutex_);
  return waiting_.size() + done_.size();
}

void CallerReads::close() {
  std::lock_guard lock(mutex_);
  wanted_.clear();
  waiting_.clear();
  done_.clear();
}

std::vector<WantedRead> CallerReads::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(wanted_, {});
}

// The memory is written to under the lock: close() waits for that.
void CallerReads::finish(uint64_t id, const std::function<void(Transfer&)>& how) {
  {
    std::lock_guard lock(mutex_);
    auto found = waiting_.find(id);
    if (found == waiting_.end()) return;
    how(*found->second);
    done_.push_back(found->second);
    waiting_.erase(found);
  }
  on_completed_();
}

void CallerReads::complete_read(uint64_t id, const uint8_t* bytes, size_t size) {
  finish(id, [&](Transfer& transfer) {
    if (size != transfer.length) {
      transfer.error = EIO;
      return;
    }
    memcpy(transfer.iov[0].iov_base, bytes, size);
    transfer.done = size;
  });
}

void CallerReads::fail_read(uint64_t id, int errnum) {
  finish(id, [&](Transfer& transfer) { transfer.error = errnum; });
}

}  // namespace qb
