// Packs compressed streams into host clusters without gaps.
// Source: qcow2.txt, "Cluster mapping", compressed clusters: a stream starts at any byte and may
// reach into the next host cluster; each host cluster is referenced once by every stream whose
// sector-rounded range touches it.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "image/disk_writer.h"
#include "image/refcounts.h"

namespace qb {

// One host cluster is open and kept in memory until it is full or closed. Not thread-safe.
class Packer {
 public:
  Packer(unsigned cluster_bits, BufferPool& pool, Output& output, Refcounts& refcounts);

  // Places a stream of less than a cluster, taking a new cluster from `end` (the end of the file,
  // in clusters) where needed. Returns the stream's byte offset in the file.
  uint64_t add(const uint8_t* stream, size_t size, uint64_t& end);
  // Writes the open cluster, if any.
  void close();
  // The first cluster to which references may still be added, given the end of the file.
  uint64_t settled(uint64_t end) const { return buffer_ ? cluster_ : end; }
  // Whether a cluster is open, that is, not written yet, and how many have been opened.
  bool is_open() const { return buffer_ != nullptr; }
  uint64_t opened() const { return opened_; }

 private:
  void open(uint64_t& end);
  void append(const uint8_t* bytes, size_t size);

  unsigned cluster_bits_;
  BufferPool& pool_;
  Output& output_;
  Refcounts& refcounts_;
  BufferRef buffer_;
  uint64_t cluster_ = 0;
  size_t used_ = 0;
  uint64_t opened_ = 0;
};

}  // namespace qb
