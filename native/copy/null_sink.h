// Takes nothing: a disk is read only to be hashed.
#pragma once

#include <vector>

#include "copy/sink.h"

namespace qb {

class NullSink : public Sink {
 public:
  void put(uint64_t, const uint8_t*, size_t, const BufferRef&) override {}
  bool zero(uint64_t, uint64_t) override { return true; }
  void flush() override {}
  void sync() override {}
  void collect(std::vector<Transfer*>&) override {}
  void complete(Transfer*) override {}
  size_t in_flight() const override { return 0; }
  void set_length(uint64_t) override {}
  void abandon() override {}
};

}  // namespace qb
