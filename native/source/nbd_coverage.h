// Which bytes of a read its answer has filled. The protocol lets a server answer in chunks of any
// order, and libnbd takes any set of them for a whole answer: without this, bytes that were in the
// memory before would pass for bytes of the disk.
#pragma once

#include <cstdint>
#include <map>

namespace qb {

// Not thread-safe.
class NbdCoverage {
 public:
  // For a read of `length` bytes at `offset` of which nothing has arrived.
  void restart(uint64_t offset, uint64_t length);
  // A chunk arrived. False if the answer breaks the protocol by it: it lies outside of the read, it
  // overlaps an earlier chunk, or there are more chunks than any server has a reason to send.
  bool add(uint64_t offset, uint64_t length);
  bool complete() const { return covered_ == length_; }

 private:
  uint64_t offset_ = 0, length_ = 0;
  uint64_t covered_ = 0;
  uint64_t chunks_ = 0;
  std::map<uint64_t, uint64_t> runs_;  // start → end; neighbours are joined
};

}  // namespace qb
