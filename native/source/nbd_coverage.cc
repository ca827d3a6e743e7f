#include "source/nbd_coverage.h"

#include <iterator>

namespace qb {

namespace {

// Servers cut answers where allocation changes, which is at sectors at the smallest; and a few more
// at the ends of files. It bounds both the work and the memory that one answer costs.
constexpr uint64_t kChunkBytes = 512;
constexpr uint64_t kMoreChunks = 16;

}  // namespace

void NbdCoverage::restart(uint64_t offset, uint64_t length) {
  offset_ = offset;
  length_ = length;
  covered_ = 0;
  chunks_ = 0;
  runs_.clear();
}

bool NbdCoverage::add(uint64_t offset, uint64_t length) {
  if (++chunks_ > length_ / kChunkBytes + kMoreChunks) return false;
  if (offset < offset_ || length > length_ || offset - offset_ > length_ - length) return false;
  if (length == 0) return true;
  uint64_t end = offset + length;
  auto next = runs_.lower_bound(offset);
  if (next != runs_.end() && next->first < end) return false;
  auto previous = next == runs_.begin() ? runs_.end() : std::prev(next);
  if (previous != runs_.end() && previous->second > offset) return false;
  covered_ += length;
  if (next != runs_.end() && next->first == end) {
    end = next->second;
    runs_.erase(next);
  }
  if (previous != runs_.end() && previous->second == offset) {
    previous->second = end;
  } else {
    runs_.emplace(offset, end);
  }
  return true;
}

}  // namespace qb
