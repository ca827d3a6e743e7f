#include "image/qcow2_writer.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/error.h"
#include "format/entries.h"

namespace qb {

namespace {

// How much of the disk may follow the first stream in the packer's open cluster before that is
// written as it is. Closing it wastes less than a cluster, so at most a 64th of its span.
constexpr uint64_t kMostHeldBytes = 32 << 20;
constexpr uint64_t kMostHeldClusters = 64;

void check(const ImageOptions& options) {
  if (options.cluster_bits < kMinClusterBits || options.cluster_bits > kMaxClusterBits) {
    throw Error(EINVAL, "cluster size");
  }
  if (options.size % kSector != 0) throw Error(EINVAL, "virtual size");
  uint64_t table_covers = 1ull << (2 * options.cluster_bits - 3);
  if (div_up(options.size, table_covers) * 8 > kMaxL1Bytes) {
    throw Error(EFBIG, "virtual size for clusters of this size");
  }
}

}  // namespace

Qcow2Writer::Qcow2Writer(const ImageOptions& options, BufferPool& pool, Output& output)
    : options_((check(options), options)),
      cluster_size_(1ull << options.cluster_bits),
      table_entries_(cluster_size_ / 8),
      disk_clusters_(div_up(options.size, cluster_size_)),
      pool_(pool),
      output_(output),
      refcounts_(options.cluster_bits, pool, output),
      packer_(options.cluster_bits, pool, output, refcounts_),
      l1_(div_up(disk_clusters_, table_entries_)) {
  // The name must be refused before a byte is written, not with the header at the end.
  encode_header({.cluster_bits = options.cluster_bits,
                 .backing_file = options.backing_file,
                 .backing_format = options.backing_format});
  refcounts_.add(0);
}

// Entries between next_ and the end of its L2 table, or of the disk.
uint64_t Qcow2Writer::entries_left() const {
  uint64_t table_end = (next_ / table_entries_ + 1) * table_entries_;
  return std::min(table_end, disk_clusters_) - next_;
}

uint64_t Qcow2Writer::clusters_of(uint64_t length) const {
  uint64_t clusters = div_up(length, cluster_size_);
  if (clusters > disk_clusters_ - next_) throw Error(EINVAL, "range past the end of the disk");
  return clusters;
}

// REQUIRES: advance(1) follows.
void Qcow2Writer::write_entry(uint64_t entry) {
  if (!table_) table_ = pool_.get_zeroed(cluster_size_);
  put_be64(table_->data() + next_ % table_entries_ * 8, entry);
}

void Qcow2Writer::advance(uint64_t clusters) {
  next_ += clusters;
  close_stale_cluster();
  if (next_ % table_entries_ == 0 || next_ == disk_clusters_) close_table();
}

// Streams that come later may still go into the packer's open cluster, but as long as it is open
// nothing behind it is settled, and every refcount since then stays in memory.
void Qcow2Writer::close_stale_cluster() {
  uint64_t held = std::max(kMostHeldBytes >> options_.cluster_bits, kMostHeldClusters);
  if (packer_.is_open() && next_ - held_from_ >= held) packer_.close();
}

// The table of the range that ends at next_ is complete.
void Qcow2Writer::close_table() {
  if (!table_) return;
  uint64_t index = (next_ - 1) / table_entries_;
  if (options_.shared_tables && zero_entries_ == table_entries_) {
    share_table(index);
  } else {
    l1_[index] = end_ << options_.cluster_bits | kCopied;
    refcounts_.add(end_);
    output_.put(end_++ << options_.cluster_bits, table_->data(), cluster_size_, table_);
  }
  table_.reset();
  zero_entries_ = 0;
  // Only here, so that no block of refcounts comes between two data clusters of one table.
  end_ = refcounts_.write_settled(packer_.settled(end_), end_);
}

void Qcow2Writer::share_table(uint64_t index) {
  if (shared_.empty() || shared_.back().l1_indexes.size() == Refcounts::kMost) {
    shared_.emplace_back();
  }
  shared_.back().l1_indexes.push_back(static_cast<uint32_t>(index));
}

void Qcow2Writer::write_data(const uint8_t* data, uint64_t length, const BufferRef& owner) {
  for (uint64_t left = clusters_of(length); left > 0;) {
    uint64_t run = std::min(left, entries_left());
    uint64_t first = end_;
    output_.put(first << options_.cluster_bits, data, run << options_.cluster_bits, owner);
    refcounts_.add(first, run);
    end_ += run;
    for (uint64_t i = 0; i < run; i++) {
      write_entry((first + i) << options_.cluster_bits | kCopied);
      advance(1);
    }
    data += run << options_.cluster_bits;
    left -= run;
  }
}

void Qcow2Writer::write_compressed(const uint8_t* stream, size_t size) {
  clusters_of(cluster_size_);
  uint64_t opened = packer_.opened();
  uint64_t offset = packer_.add(stream, size, end_);
  if (packer_.opened() != opened) held_from_ = next_;
  write_entry(compressed_entry(offset, size, options_.cluster_bits));
  advance(1);
}

// Without a backing file unallocated clusters read as zero already. Over one, each cluster gets a
// zero flag; and since a table of nothing but zero flags looks the same for every range of the
// disk, all such ranges may share one table: its refcount is the number of L1 entries that point
// there, and these lack the COPIED flag, as after an internal snapshot. (A table can be shared as
// often as a refcount can count.) So a wiped terabyte takes one cluster instead of 2048.
void Qcow2Writer::write_zeroes(uint64_t length) {
  if (!has_backing()) {
    skip(length);
    return;
  }
  for (uint64_t left = clusters_of(length); left > 0;) {
    uint64_t run = std::min(left, entries_left());
    if (options_.shared_tables && run == table_entries_) {
      share_table(next_ / table_entries_);
      next_ += run;
      close_stale_cluster();
    } else {
      for (uint64_t i = 0; i < run; i++) {
        write_entry(kZero);
        zero_entries_++;
        advance(1);
      }
    }
    left -= run;
  }
}

void Qcow2Writer::skip(uint64_t length) {
  for (uint64_t left = clusters_of(length); left > 0;) {
    uint64_t run = std::min(left, entries_left());
    advance(run);
    left -= run;
  }
}

uint64_t Qcow2Writer::settled() const {
  uint64_t clusters = packer_.is_open() ? held_from_ : next_;
  return std::min(clusters << options_.cluster_bits, options_.size);
}

void Qcow2Writer::write_shared_tables() {
  if (shared_.empty()) return;
  BufferRef zeroes = pool_.get(cluster_size_);
  for (uint64_t i = 0; i < table_entries_; i++) put_be64(zeroes->data() + 8 * i, kZero);
  for (const SharedTable& table : shared_) {
    uint64_t entry = end_ << options_.cluster_bits;
    if (table.l1_indexes.size() == 1) entry |= kCopied;
    for (uint32_t index : table.l1_indexes) l1_[index] = entry;
    refcounts_.add(end_);
    refcounts_.set(end_, static_cast<uint16_t>(table.l1_indexes.size()));
    output_.put(end_++ << options_.cluster_bits, zeroes->data(), cluster_size_, zeroes);
  }
}

void Qcow2Writer::finish() {
  if (next_ != disk_clusters_) throw Error(EINVAL, "disk is not complete");
  packer_.close();
  write_shared_tables();

  // The L1 table comes last, and the file ends with its last cluster, not with its last entry:
  // storage that keeps only whole sectors or blocks would cut a shorter file before the entries,
  // and QEMU takes a missing part of the table for zeroes without a word. An empty disk has no
  // table: a cluster kept for it would count as leaked.
  uint64_t l1_clusters = div_up(l1_.size() * 8, cluster_size_);
  end_ = refcounts_.finish(end_, l1_clusters);
  file_length_ = (end_ + l1_clusters) << options_.cluster_bits;
  if (l1_.empty()) return;
  l1_offset_ = end_ << options_.cluster_bits;
  BufferRef table = pool_.get_zeroed(l1_clusters << options_.cluster_bits);
  for (size_t i = 0; i < l1_.size(); i++) put_be64(table->data() + 8 * i, l1_[i]);
  output_.put(l1_offset_, table->data(), l1_clusters << options_.cluster_bits, table);
}

void Qcow2Writer::write_header() {
  std::vector<uint8_t> bytes = encode_header({
      .cluster_bits = options_.cluster_bits,
      .size = options_.size,
      .l1_offset = l1_offset_,
      .l1_size = static_cast<uint32_t>(l1_.size()),
      .reftable_offset = refcounts_.table_offset(),
      .reftable_clusters = refcounts_.table_clusters(),
      .compression = options_.compression,
      .backing_file = options_.backing_file,
      .backing_format = options_.backing_format,
  });
  BufferRef buffer = pool_.get(cluster_size_);
  memcpy(buffer->data(), bytes.data(), bytes.size());
  output_.put(0, buffer->data(), cluster_size_, buffer);
}

}  // namespace qb
