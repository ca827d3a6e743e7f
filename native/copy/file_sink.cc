#include "copy/file_sink.h"

#include <climits>
#include <string>
#include <utility>

#include "copy/error.h"

namespace qb {

namespace {

// Measured with fio on ext4 with O_DIRECT: 1 MiB writes 1160–1420 MiB/s, 4 MiB 1410–1710, 64 KiB
// 300. Larger ones only hold memory longer.
constexpr uint64_t kWriteBytes = 2 << 20;

}  // namespace

FileSink::FileSink(File& file, Queue& queue, bool fresh)
    : file_(file), queue_(queue), fresh_(fresh) {}

bool FileSink::continues(uint64_t offset) const {
  return pending_ && offset == pending_->transfer.offset + pending_bytes_ &&
         pending_bytes_ < kWriteBytes && pending_->transfer.iov.size() < IOV_MAX;
}

void FileSink::put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) {
  if (!continues(offset)) {
    flush();
    pending_ = std::make_unique<Write>();
    pending_->transfer.op = Op::kWrite;
    pending_->transfer.fd = file_.fd();
    pending_->transfer.offset = offset;
    pending_->transfer.alignment = file_.alignment();
  }
  auto* base = const_cast<uint8_t*>(data);
  auto& iov = pending_->transfer.iov;
  if (!iov.empty() && static_cast<uint8_t*>(iov.back().iov_base) + iov.back().iov_len == base) {
    iov.back().iov_len += size;
  } else {
    iov.push_back({base, size});
  }
  if (pending_->owners.empty() || pending_->owners.back() != owner) {
    pending_->owners.push_back(owner);
  }
  pending_bytes_ += size;
  if (pending_bytes_ >= kWriteBytes) flush();
}

bool FileSink::zero(uint64_t offset, uint64_t length) {
  if (file_.is_device()) return file_.zero_device_range(offset, length);
  return fresh_ || file_.punch(offset, length);
}

void FileSink::flush() {
  if (!pending_) return;
  at_target([&] { file_.reserve(pending_->transfer.offset + pending_bytes_); });
  submit(std::exchange(pending_, nullptr));
  pending_bytes_ = 0;
}

void FileSink::sync() {
  auto write = std::make_unique<Write>();
  write->transfer.op = Op::kSync;
  write->transfer.fd = file_.fd();
  submit(std::move(write));
}

void FileSink::submit(std::unique_ptr<Write> write) {
  write->transfer.tag = write.get();
  in_flight_++;
  queue_.submit(&write.release()->transfer);
}

void FileSink::set_length(uint64_t length) {
  at_target([&] { file_.set_length(length); });
}

void FileSink::complete(Transfer* transfer) {
  std::unique_ptr<Write> write(static_cast<Write*>(transfer->tag));
  in_flight_--;
  if (transfer->error != 0) throw write_error(*transfer);
  if (transfer->op == Op::kWrite) {
    at_target([&] { file_.written_up_to(transfer->offset + transfer->length); });
  }
}

}  // namespace qb
