#include "copy/remote_sink.h"

#include <utility>

#include "copy/error.h"

namespace qb {

RemoteSink::RemoteSink(std::shared_ptr<Remote> remote, bool can_zero)
    : can_zero_(can_zero), remote_(std::move(remote)) {}

Write& RemoteSink::add(Op op, uint64_t offset) {
  auto write = std::make_unique<Write>();
  write->transfer.op = op;
  write->transfer.offset = offset;
  Write& added = *write;
  writes_.emplace(&added.transfer, std::move(write));
  return added;
}

void RemoteSink::put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) {
  Write& write = add(Op::kWrite, offset);
  write.transfer.iov = {{const_cast<uint8_t*>(data), size}};
  write.owners = {owner};
  remote_->submit(&write.transfer);
}

bool RemoteSink::zero(uint64_t offset, uint64_t length) {
  if (!can_zero_) return false;
  Write& write = add(Op::kZero, offset);
  write.transfer.length = length;
  remote_->submit(&write.transfer);
  return true;
}

void RemoteSink::sync() {
  remote_->submit(&add(Op::kSync, 0).transfer);
}

void RemoteSink::complete(Transfer* transfer) {
  auto write = std::move(writes_.extract(transfer).mapped());
  if (transfer->error == 0) return;
  std::string lost = remote_->failure();
  if (lost.empty()) throw write_error(*transfer);
  throw CopyError(Failure::kTargetServer, transfer->error, lost);
}

void RemoteSink::abandon() {
  remote_->close();
  writes_.clear();
}

}  // namespace qb
