#include "image/refcounts.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/error.h"
#include "format/header.h"

namespace qb {

Refcounts::Refcounts(unsigned cluster_bits, BufferPool& pool, Output& output)
    : cluster_bits_(cluster_bits),
      per_block_((8ull << cluster_bits) >> kRefcountOrder),
      pool_(pool),
      output_(output) {}

void Refcounts::add(uint64_t cluster, uint64_t count) {
  uint64_t first = cluster - blocks_.size() * per_block_;
  if (counts_.size() < first + count) counts_.resize(first + count);
  for (uint64_t i = first; i < first + count; i++) counts_[i]++;
}

void Refcounts::set(uint64_t cluster, uint16_t value) {
  counts_.at(cluster - blocks_.size() * per_block_) = value;
}

uint16_t Refcounts::get(uint64_t cluster) const {
  return counts_.at(cluster - blocks_.size() * per_block_);
}

void Refcounts::check_table(uint64_t blocks) const {
  if (blocks * 8 > kMaxReftableBytes) throw Error(EFBIG, "refcount table of the image");
}

// Takes the first per_block_ counts out of the window.
void Refcounts::write_block(uint64_t at_cluster) {
  BufferRef buffer = pool_.get_zeroed(1ull << cluster_bits_);
  uint64_t counted = std::min<uint64_t>(per_block_, counts_.size());
  for (uint64_t i = 0; i < counted; i++) put_be16(buffer->data() + 2 * i, counts_[i]);
  counts_.erase(counts_.begin(), counts_.begin() + static_cast<ptrdiff_t>(counted));
  uint64_t offset = at_cluster << cluster_bits_;
  blocks_.push_back(offset);
  output_.put(offset, buffer->data(), 1ull << cluster_bits_, buffer);
}

uint64_t Refcounts::write_settled(uint64_t settled, uint64_t end) {
  while ((blocks_.size() + 1) * per_block_ <= settled) {
    check_table(blocks_.size() + 1);
    add(end);
    write_block(end++);
  }
  return end;
}

// The blocks also count themselves and the table: more blocks may be needed to count the
// blocks, so grow both until nothing changes.
uint64_t Refcounts::finish(uint64_t end, uint64_t extra) {
  uint64_t more = 0;
  uint64_t table = 0;
  for (uint64_t before = ~0ull; before != more + table;) {
    before = more + table;
    uint64_t blocks = div_up(end + more + table + extra, per_block_);
    more = blocks - blocks_.size();
    table = div_up(blocks * 8, 1ull << cluster_bits_);
    check_table(blocks);
  }
  add(end, more + table + extra);
  for (uint64_t i = 0; i < more; i++) write_block(end + i);

  table_offset_ = (end + more) << cluster_bits_;
  table_clusters_ = static_cast<uint32_t>(table);
  BufferRef buffer = pool_.get_zeroed(table << cluster_bits_);
  for (size_t i = 0; i < blocks_.size(); i++) put_be64(buffer->data() + 8 * i, blocks_[i]);
  output_.put(table_offset_, buffer->data(), table << cluster_bits_, buffer);
  return end + more + table;
}

}  // namespace qb
