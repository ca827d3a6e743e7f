// How far a copy is.
#pragma once

#include <atomic>
#include <cstdint>

namespace qb {

struct CopyCounters {
  uint64_t data = 0;       // guest bytes stored as data
  uint64_t zero = 0;       // guest bytes that read as zero
  uint64_t unchanged = 0;  // guest bytes left to the backing file
  uint64_t position = 0;   // guest bytes settled, from 0 on
  uint64_t read = 0;       // bytes read from the sources
};

// Counted by the copy's thread; any thread may ask.
class LiveCounters {
 public:
  void add_data(uint64_t length) { add(data_, length); }
  void add_zero(uint64_t length) { add(zero_, length); }
  void add_unchanged(uint64_t length) { add(unchanged_, length); }
  void add_read(uint64_t bytes) { read_ += bytes; }

  CopyCounters now() const { return {data_, zero_, unchanged_, position_, read_}; }

 private:
  void add(std::atomic<uint64_t>& as, uint64_t length) {
    as += length;
    position_ += length;
  }

  std::atomic<uint64_t> data_ = 0, zero_ = 0, unchanged_ = 0, position_ = 0, read_ = 0;
};

}  // namespace qb
