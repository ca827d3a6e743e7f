// Writes into a file that exists, in the order of the file: what is skipped stays as it is.
#pragma once

#include "base/buffer.h"
#include "image/disk_writer.h"

namespace qb {

class PatchWriter : public DiskWriter {
 public:
  // Bytes: `size`, the file's length from now on; `unit`, what every range is a multiple of.
  PatchWriter(uint64_t size, uint64_t unit, BufferPool& pool, Output& output);

  uint64_t unit() const override { return unit_; }
  bool has_backing() const override { return true; }
  size_t compressed_limit() const override { return 0; }
  uint64_t most_zero() const override { return 256 << 20; }
  uint64_t settled() const override { return next_; }

  void data(const uint8_t* data, uint64_t length, const BufferRef& owner) override;
  void compressed(const uint8_t* stream, size_t size) override;
  void zero(uint64_t length) override;
  void skip(uint64_t length) override;
  void finish() override {}
  void header() override {}
  uint64_t file_length() const override { return size_; }

 private:
  uint64_t size_;
  uint64_t unit_;
  BufferPool& pool_;
  Output& output_;
  BufferRef zeroes_;
  uint64_t next_ = 0;
};

}  // namespace qb
