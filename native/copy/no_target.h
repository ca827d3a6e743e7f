// A target that keeps nothing: a disk is read only to be hashed.
#pragma once

#include <vector>

#include "copy/sink.h"

namespace qb {

class NoSink : public Sink {
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

class NoWriter : public DiskWriter {
 public:
  // `unit`: bytes.
  NoWriter(uint64_t unit, bool has_backing) : unit_(unit), has_backing_(has_backing) {}

  uint64_t unit() const override { return unit_; }
  bool has_backing() const override { return has_backing_; }
  size_t compressed_limit() const override { return 0; }
  uint64_t most_zero() const override { return ~0ull; }
  uint64_t settled() const override { return 0; }
  void data(const uint8_t*, uint64_t, const BufferRef&) override {}
  void compressed(const uint8_t*, size_t) override {}
  void zero(uint64_t) override {}
  void skip(uint64_t) override {}
  void finish() override {}
  void header() override {}
  uint64_t file_length() const override { return 0; }

 private:
  uint64_t unit_;
  bool has_backing_;
};

}  // namespace qb
