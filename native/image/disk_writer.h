// The writer of a copy's target: a qcow2 image or a raw disk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"

namespace qb {

// Where a writer sends bytes for the file. Calls never wait for the disk; `owner` keeps the memory
// alive until they are written.
class Output {
 public:
  virtual ~Output() = default;
  virtual void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) = 0;
  // Makes a range that was never put read as zero, without bytes being sent. False where it can't:
  // then zeroes must be put.
  virtual bool zero(uint64_t offset, uint64_t length) = 0;
};

// Takes a disk in guest order. Every range starts where the one before ended and is a multiple of
// unit() long; the last one may extend past the end of the disk by less than one unit.
// Not thread-safe. Every method may throw Error.
class DiskWriter {
 public:
  virtual ~DiskWriter() = default;

  // Bytes: the smallest range that can be data, zero or skipped on its own.
  virtual uint64_t unit() const = 0;
  // True if skipped ranges may read as nonzero.
  virtual bool has_backing() const = 0;
  // The largest compressed stream worth storing for one unit; 0 if it takes none.
  virtual size_t compressed_limit() const = 0;
  // Bytes: the longest range of write_zeroes() or skip() at a time, so that what these put is
  // bounded.
  virtual uint64_t most_zero() const = 0;
  // Guest bytes from 0 on that are wholly put: not those held back to fill a cluster.
  virtual uint64_t settled() const = 0;

  virtual void write_data(const uint8_t* data, uint64_t length, const BufferRef& owner) = 0;
  // One unit, as a stream of 1 to compressed_limit() bytes; copied before it returns.
  virtual void write_compressed(const uint8_t* stream, size_t size) = 0;
  // Reads as zero, whatever the backing file holds.
  virtual void write_zeroes(uint64_t length) = 0;
  // Left to the backing file; without one it reads as zero.
  virtual void skip(uint64_t length) = 0;

  // After the whole disk was given: the tables. They must be durable before write_header().
  virtual void finish() = 0;
  // The header, which makes the file valid; put last.
  virtual void write_header() = 0;
  // The file's length, bytes. REQUIRES: finish() was called.
  virtual uint64_t file_length() const = 0;
};

}  // namespace qb
