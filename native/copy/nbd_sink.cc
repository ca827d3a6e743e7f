#include "copy/nbd_sink.h"

#include <utility>

#include "copy/error.h"

namespace qb {

NbdSink::NbdSink(const NbdClientSpec& spec, bool can_zero, std::function<void()> finished)
    : can_zero_(can_zero), client_(std::make_unique<NbdClient>(spec, std::move(finished))) {}

Write& NbdSink::add(Op op, uint64_t offset) {
  auto write = std::make_unique<Write>();
  write->transfer.op = op;
  write->transfer.offset = offset;
  Write& added = *write;
  writes_.emplace(&added.transfer, std::move(write));
  return added;
}

void NbdSink::put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) {
  Write& write = add(Op::kWrite, offset);
  write.transfer.iov = {{const_cast<uint8_t*>(data), size}};
  write.owners = {owner};
  client_->submit(&write.transfer);
}

bool NbdSink::zero(uint64_t offset, uint64_t length) {
  if (!can_zero_) return false;
  Write& write = add(Op::kZero, offset);
  write.transfer.length = length;
  client_->submit(&write.transfer);
  return true;
}

void NbdSink::sync() {
  client_->submit(&add(Op::kSync, 0).transfer);
}

void NbdSink::complete(Transfer* transfer) {
  auto write = std::move(writes_.extract(transfer).mapped());
  if (transfer->error == 0) return;
  std::string lost = client_->failure();
  if (lost.empty()) throw write_error(*transfer);
  throw CopyError(Failure::kTargetServer, transfer->error, lost);
}

void NbdSink::abandon() {
  client_.reset();
  writes_.clear();
}

}  // namespace qb
