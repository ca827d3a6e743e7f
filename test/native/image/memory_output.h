// A file in memory for writers, as unforgiving as the disk is later.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "image/disk_writer.h"
#include "support/bytes.h"

namespace qb::test {

// Keeps what is put the way a slow disk would: by reference. Memory that its writer changes after
// the put, or lets go so that the pool hands it out again, shows up as wrong content.
class MemoryOutput : public Output {
 public:
  struct Put {
    uint64_t offset;
    const uint8_t* data;
    size_t size;
    BufferRef owner;

    uint64_t end() const { return offset + size; }
  };

  void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) override {
    puts_.push_back({offset, data, size, owner});
    length_ = std::max(length_, puts_.back().end());
    sorted_ = false;
  }

  // A new file has holes.
  bool zero(uint64_t offset, uint64_t length) override {
    zeroes_.emplace_back(offset, length);
    return makes_zeroes;
  }
  bool makes_zeroes = true;

  // Offset and length of what zero() was asked for.
  const std::vector<std::pair<uint64_t, uint64_t>>& zeroes() const { return zeroes_; }
  // In the order they came.
  const std::vector<Put>& puts() const { return puts_; }
  // Offset and length of the puts.
  std::vector<std::pair<uint64_t, uint64_t>> put_ranges() const {
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (const Put& put : puts_) ranges.emplace_back(put.offset, put.size);
    return ranges;
  }
  // As far as anything was put, bytes.
  uint64_t length() const { return length_; }

  // What was never put reads as zero, as a hole in a file does.
  void read(uint64_t offset, uint8_t* into, size_t size) {
    if (size == 0) return;
    sort();
    memset(into, 0, size);
    auto at = std::upper_bound(by_offset_.begin(), by_offset_.end(), offset,
                               [](uint64_t o, const Put& put) { return o < put.end(); });
    for (; at != by_offset_.end() && at->offset < offset + size; ++at) {
      uint64_t from = std::max(at->offset, offset), to = std::min(at->end(), offset + size);
      memcpy(into + (from - offset), at->data + (from - at->offset), to - from);
    }
  }

  // REQUIREs that every put stands on whole clusters and nothing was put twice.
  void require_sound(uint64_t cluster_size) {
    sort();
    bool aligned = true, once = true;
    uint64_t end = 0;
    for (const Put& put : by_offset_) {
      aligned = aligned && put.offset % cluster_size == 0 && put.size % cluster_size == 0;
      once = once && put.offset >= end && put.size > 0;
      end = put.end();
    }
    REQUIRE(aligned);
    REQUIRE(once);
  }

 private:
  void sort() {
    if (sorted_) return;
    by_offset_ = puts_;
    std::sort(by_offset_.begin(), by_offset_.end(),
              [](const Put& a, const Put& b) { return a.offset < b.offset; });
    sorted_ = true;
  }

  std::vector<Put> puts_;
  std::vector<std::pair<uint64_t, uint64_t>> zeroes_;
  std::vector<Put> by_offset_;
  bool sorted_ = false;
  uint64_t length_ = 0;
};

}  // namespace qb::test
