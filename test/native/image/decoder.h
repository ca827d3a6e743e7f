// Reads version 3 images by the words of the specification (qcow2.txt) and shares nothing with the
// writer, not even constants.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/bytes.h"

namespace qb::test {

// Fills memory from an offset of a file; what lies behind its end reads as zero.
using ReadAt = std::function<void(uint64_t offset, uint8_t* into, size_t size)>;

struct DecodedHeader {
  uint32_t magic = 0, version = 0, backing_size = 0, cluster_bits = 0, crypt = 0, l1_size = 0;
  uint32_t reftable_clusters = 0, snapshots = 0, refcount_order = 0, length = 0;
  uint64_t backing_offset = 0, size = 0, l1_offset = 0, reftable_offset = 0;
  uint64_t incompatible = 0, compatible = 0, autoclear = 0;
  uint8_t compression = 0;
};

struct GuestCluster {
  enum Kind { kUnallocated, kZero, kData, kCompressed } kind = kUnallocated;
  uint64_t host = 0;  // bytes; compressed: where the stream starts
  uint64_t size = 0;  // compressed: bytes to the end of the last sector that is named
};

class Decoder {
 public:
  // `file_length`: bytes.
  Decoder(ReadAt read, uint64_t file_length);

  const DecodedHeader& header() const { return header_; }
  std::string backing_name() const { return text(header_.backing_offset, header_.backing_size); }
  std::string backing_format() const;
  uint64_t cluster_size() const { return 1ull << header_.cluster_bits; }
  uint64_t clusters() const { return (header_.size + cluster_size() - 1) / cluster_size(); }

  // How guest cluster `index` is mapped.
  GuestCluster cluster(uint64_t index) const;
  // The content of a cluster that is not unallocated; empty if its stream is damaged.
  Bytes content(const GuestCluster& cluster) const;
  // All of the disk; unallocated clusters come from `backing` (which may be shorter), else zero.
  Bytes disk(const Bytes& backing = {}) const;
  // The table an L1 entry points to, bytes in the file; 0 if there is none.
  uint64_t table(uint64_t l1_index) const { return l1_.at(l1_index) & kOffset; }

  // What is wrong with the image, in words; empty if it is sound, has no leak and no cluster that
  // is used twice (other than by compressed streams and by tables of nothing but zero flags).
  std::vector<std::string> problems() const;

 private:
  static constexpr uint64_t kOffset = 0x00fffffffffffe00;

  uint64_t number(uint64_t at, unsigned size) const;
  std::string text(uint64_t at, size_t size) const;
  std::vector<uint64_t> numbers(uint64_t at, uint64_t count) const;
  const std::vector<uint64_t>& l2(uint64_t offset) const;
  const std::vector<uint16_t>& block(uint64_t offset) const;
  uint64_t refcount(uint64_t host_cluster) const;

  ReadAt read_;
  uint64_t file_length_;
  DecodedHeader header_;
  std::vector<uint64_t> l1_;
  std::vector<uint64_t> reftable_;
  mutable std::map<uint64_t, std::vector<uint64_t>> tables_;  // L2 tables read
  mutable std::map<uint64_t, std::vector<uint16_t>> blocks_;  // refcount blocks read
};

}  // namespace qb::test
