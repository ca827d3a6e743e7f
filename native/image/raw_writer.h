// Writes a disk as it is: a sparse file, a block device or an NBD export.
#pragma once

#include "base/buffer.h"
#include "image/disk_writer.h"

namespace qb {

class RawWriter : public DiskWriter {
 public:
  // Bytes: `unit`, a multiple of the target's alignment; `end`, where writing stops, at least
  // `size`: the last unit may extend past the end of the disk, but not past that of the target.
  RawWriter(uint64_t size, uint64_t unit, uint64_t end, BufferPool& pool, Output& output);

  uint64_t unit() const override { return unit_; }
  bool has_backing() const override { return false; }
  size_t compressed_limit() const override { return 0; }
  uint64_t most_zero() const override { return 256 << 20; }
  uint64_t settled() const override { return next_; }

  void write_data(const uint8_t* data, uint64_t length, const BufferRef& owner) override;
  void write_compressed(const uint8_t* stream, size_t size) override;
  void write_zeroes(uint64_t length) override;
  void skip(uint64_t length) override;
  void finish() override {}
  void write_header() override {}
  uint64_t file_length() const override { return size_; }

 protected:
  // Sends zeroes for the next bytes, without advancing past them.
  void put_zeroes(uint64_t length);
  void advance(uint64_t length) { next_ += length; }

 private:
  uint64_t size_;
  uint64_t unit_;
  uint64_t end_;
  BufferPool& pool_;
  Output& output_;
  BufferRef zeroes_;  // shared by all that is put
  uint64_t next_ = 0;
};

}  // namespace qb
