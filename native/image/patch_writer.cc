#include "image/patch_writer.h"

namespace qb {

namespace {

// Shorter ranges of zeroes are put: a hole costs a call into the file system, and the file falls
// into pieces.
constexpr uint64_t kLeastHole = 1 << 20;

}  // namespace

PatchWriter::PatchWriter(uint64_t size, uint64_t unit, BufferPool& pool, Output& output)
    : RawWriter(size, unit, size, pool, output) {}

void PatchWriter::write_zeroes(uint64_t length) {
  if (length >= kLeastHole) {
    RawWriter::write_zeroes(length);
    return;
  }
  put_zeroes(length);
  advance(length);
}

void PatchWriter::skip(uint64_t length) {
  advance(length);
}

}  // namespace qb
