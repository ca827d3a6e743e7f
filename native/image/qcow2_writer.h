// Makes a fresh version 3 image from a disk given in guest order. The only place that knows where
// clusters go: the file is appended to, nothing in it is used twice or given up.
//
//   header | data of L2 table 0, table 0 | data of table 1, table 1 | … | refcounts | L1
//
// One L2 table is in memory at a time; a table is written once, when its range of the disk is done,
// behind the data it maps. So data lie in guest order and in one piece, `qemu-img check` counts no
// fragmentation, and memory does not grow with the disk but for L1 (8 bytes per L2 table).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "format/header.h"
#include "image/disk_writer.h"
#include "image/packer.h"
#include "image/refcounts.h"

namespace qb {

struct ImageOptions {
  unsigned cluster_bits = 16;
  uint64_t size = 0;  // virtual, bytes, a multiple of 512
  std::string backing_file;
  std::string backing_format;
  CompressionType compression = CompressionType::kZlib;
  // Over a backing file, let ranges of nothing but zero flags share one L2 table. Such an image is
  // valid but not one for a virtual machine to write to: once its writes leave one user of the
  // table, QEMU does not set that entry's COPIED flag again.
  bool shared_tables = true;
};

class Qcow2Writer : public DiskWriter {
 public:
  // Throws Error: EINVAL for sizes that no image can have, EFBIG if the disk needs a larger L1
  // table than QEMU opens, ENAMETOOLONG if the backing file's name does not fit.
  Qcow2Writer(const ImageOptions& options, BufferPool& pool, Output& output);

  uint64_t unit() const override { return cluster_size_; }
  bool has_backing() const override { return !options_.backing_file.empty(); }
  size_t compressed_limit() const override { return cluster_size_ - 1; }
  uint64_t most_zero() const override { return ~0ull; }
  uint64_t settled() const override;

  void write_data(const uint8_t* data, uint64_t length, const BufferRef& owner) override;
  void write_compressed(const uint8_t* stream, size_t size) override;
  void write_zeroes(uint64_t length) override;
  void skip(uint64_t length) override;
  void finish() override;
  void write_header() override;
  uint64_t file_length() const override { return file_length_; }

 private:
  // A table of zero flags that many L1 entries share, see write_zeroes().
  struct SharedTable {
    std::vector<uint32_t> l1_indexes;
  };

  uint64_t entries_left() const;
  uint64_t clusters_of(uint64_t length) const;
  void write_entry(uint64_t entry);
  void advance(uint64_t clusters);
  void close_stale_cluster();
  void close_table();
  void share_table(uint64_t index);
  void write_shared_tables();

  ImageOptions options_;
  uint64_t cluster_size_;
  uint64_t table_entries_;  // L2 entries per table
  uint64_t disk_clusters_;
  BufferPool& pool_;
  Output& output_;
  Refcounts refcounts_;
  Packer packer_;

  std::vector<uint64_t> l1_;  // entries, host byte order
  std::vector<SharedTable> shared_;
  uint64_t end_ = 1;           // of the file, clusters; the header is cluster 0
  uint64_t next_ = 0;          // guest cluster that comes next
  uint64_t held_from_ = 0;     // the first one with bytes in the packer's open cluster
  BufferRef table_;            // the L2 table of next_, once it has an entry
  uint64_t zero_entries_ = 0;  // entries of table_ that are only a zero flag
  uint64_t l1_offset_ = 0;     // stays 0 for an empty disk, as qemu-img's
  uint64_t file_length_ = 0;
};

}  // namespace qb
