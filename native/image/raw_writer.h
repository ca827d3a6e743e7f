// Writes a disk as it is: a sparse file, or a block device.
#pragma once

#include "base/buffer.h"
#include "base/file.h"
#include "image/disk_writer.h"

namespace qb {

// A regular file must be new: what is skipped stays a hole. On a device the zeroes are really made,
// by the device where it can.
class RawWriter : public DiskWriter {
 public:
  // `size`: bytes of the disk. Sets the file's length. Throws Error.
  RawWriter(File& file, uint64_t size, BufferPool& pool, Output& output);

  // As qemu-img looks for zeroes (convert -S 4k), and what O_DIRECT takes everywhere.
  uint64_t unit() const override { return kPage; }
  bool has_backing() const override { return false; }
  size_t compressed_limit() const override { return 0; }

  void data(const uint8_t* data, uint64_t length, const BufferRef& owner) override;
  void compressed(const uint8_t* stream, size_t size) override;
  void zero(uint64_t length) override;
  void skip(uint64_t length) override;
  void finish() override {}
  void header() override {}
  uint64_t file_length() const override { return size_; }

 private:
  // Where writing to a device stops, bytes.
  uint64_t device_end() const;

  File& file_;
  uint64_t size_;
  BufferPool& pool_;
  Output& output_;
  uint64_t next_ = 0;
};

}  // namespace qb
