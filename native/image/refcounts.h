// Refcounts of an image that is only ever appended to: counted in a window that moves with the end
// of the file, written as soon as no count in a block can change any more.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/buffer.h"
#include "image/disk_writer.h"

namespace qb {

// Memory: two bytes for every cluster not yet written out, eight for every block of refcounts.
// Not thread-safe.
class Refcounts {
 public:
  Refcounts(unsigned cluster_bits, BufferPool& pool, Output& output);

  // One more reference to each of `count` clusters from `cluster` on.
  // REQUIRES: `cluster` was not settled yet.
  void add(uint64_t cluster, uint64_t count = 1);
  void set(uint64_t cluster, uint16_t value);
  uint16_t get(uint64_t cluster) const;

  // Writes the blocks that cover only clusters below `settled`; `end` is where the file ends, in
  // clusters. Returns the new end. Throws Error(EFBIG) when the refcount table would become larger
  // than QEMU opens.
  uint64_t write_settled(uint64_t settled, uint64_t end);

  // Writes all that is left, for a file of `end` clusters to which `extra` more will be appended
  // after the refcount table. Returns the end of the table; throws as write_settled.
  uint64_t finish(uint64_t end, uint64_t extra);

  // REQUIRES: finish() was called.
  uint64_t table_offset() const { return table_offset_; }
  uint32_t table_clusters() const { return table_clusters_; }

  static constexpr uint16_t kMost = 65535;

 private:
  void write_block(uint64_t at_cluster);
  void check_table(uint64_t blocks) const;

  unsigned cluster_bits_;
  uint64_t per_block_;  // clusters that one block counts
  BufferPool& pool_;
  Output& output_;
  std::vector<uint64_t> blocks_;  // file offsets of the blocks written: the refcount table
  // A deque: blocks are taken from its front one by one, and it may hold many.
  std::deque<uint16_t> counts_;  // from cluster blocks_.size() * per_block_ on
  uint64_t table_offset_ = 0;
  uint32_t table_clusters_ = 0;
};

}  // namespace qb
