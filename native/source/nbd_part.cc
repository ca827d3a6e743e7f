#include "source/nbd_part.h"

#include <algorithm>
#include <utility>

namespace qb {

namespace {

// Zeroes of one request: its length has 32 bits, and a server that has to write them must answer
// within the timeout. A multiple of every minimum block size, which are at most 64 KiB.
constexpr uint64_t kMostZeroed = 128 << 20;

constexpr uint64_t kMostPayload = 1 << 20;

// Takes down a chunk of a read. False if it breaks the protocol.
bool take_chunk(NbdCoverage& coverage, uint64_t offset, uint64_t length, unsigned status) {
  // An error fills nothing; the whole read fails with it. Each counts, for they may never end.
  if (status == LIBNBD_READ_ERROR) return coverage.add(offset, 0);
  return coverage.add(offset, length);
}

// These two run inside libnbd, on the thread that works for the connection.
int on_done(void* data, int* error) noexcept {
  auto* part = static_cast<NbdPart*>(data);
  part->completed = true;
  part->error = *error;
  if (part->op() == Op::kRead && *error == 0 && !part->coverage.complete()) part->broken = true;
  return 1;
}

int on_chunk(void* data, const void*, size_t count, uint64_t offset, unsigned status,
             int* error) noexcept {
  auto* part = static_cast<NbdPart*>(data);
  if (take_chunk(part->coverage, offset, count, status)) return 0;
  part->broken = true;
  *error = EPROTO;
  return -1;
}

}  // namespace

bool NbdPart::send(nbd_handle* handle, bool no_hole) {
  const NbdLibrary& nbd = nbd_library();
  nbd_completion_callback done{on_done, this, nullptr};
  completed = false;
  broken = false;
  switch (op()) {
    case Op::kRead:
      coverage.restart(offset, length);
      return nbd.aio_pread_structured(handle, memory, length, offset, {on_chunk, this, nullptr},
                                      done, 0) >= 0;
    case Op::kWrite:
      return nbd.aio_pwrite(handle, memory, length, offset, done, 0) >= 0;
    case Op::kZero:
      return nbd.aio_zero(handle, length, offset, done, no_hole ? LIBNBD_CMD_FLAG_NO_HOLE : 0) >= 0;
    case Op::kSync:
      return nbd.aio_flush(handle, done, 0) >= 0;
  }
  return false;
}

uint64_t part_limit(uint64_t block_max) {
  return std::min(block_max, kMostPayload);
}

void split(Transfer* transfer, uint64_t block_max, std::deque<std::unique_ptr<NbdPart>>& parts) {
  auto* memory = transfer->iov.empty() ? nullptr : static_cast<uint8_t*>(transfer->iov[0].iov_base);
  uint64_t most = memory ? part_limit(block_max) : kMostZeroed;
  auto task = std::make_shared<NbdTask>(NbdTask{transfer, 0});
  uint64_t at = 0;
  do {  // a sync has no length, and is one part
    uint64_t start = transfer->offset + at;
    // No part crosses a multiple of the limit: a server may have its own reasons for it.
    uint64_t length = std::min(most - start % most, transfer->length - at);
    parts.push_back(
        std::make_unique<NbdPart>(NbdPart{task, memory ? memory + at : nullptr, start, length}));
    task->parts_left++;
    at += length;
  } while (at < transfer->length);
}

}  // namespace qb
