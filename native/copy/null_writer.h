// Makes nothing of a disk, which is read only to be hashed.
#pragma once

#include "image/disk_writer.h"

namespace qb {

class NullWriter : public DiskWriter {
 public:
  // `unit`: bytes.
  NullWriter(uint64_t unit, bool has_backing) : unit_(unit), has_backing_(has_backing) {}

  uint64_t unit() const override { return unit_; }
  bool has_backing() const override { return has_backing_; }
  size_t compressed_limit() const override { return 0; }
  uint64_t most_zero() const override { return ~0ull; }
  uint64_t settled() const override { return 0; }
  void write_data(const uint8_t*, uint64_t, const BufferRef&) override {}
  void write_compressed(const uint8_t*, size_t) override {}
  void write_zeroes(uint64_t) override {}
  void skip(uint64_t) override {}
  void finish() override {}
  void write_header() override {}
  uint64_t file_length() const override { return 0; }

 private:
  uint64_t unit_;
  bool has_backing_;
};

}  // namespace qb
