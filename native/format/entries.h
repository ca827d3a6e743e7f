// L1 and L2 table entries as written. Source: qcow2.txt, "Cluster mapping".
#pragma once

#include <cstdint>

namespace qb {

// Bit 63, COPIED: the refcount of the cluster pointed to is exactly one. DO NOT CHANGE.
inline constexpr uint64_t kCopied = 1ull << 63;
// Bit 62 of an L2 entry: the cluster is compressed. DO NOT CHANGE.
inline constexpr uint64_t kCompressed = 1ull << 62;
// Bit 0 of an L2 entry: the cluster reads as zero, whatever the backing file holds. DO NOT CHANGE.
inline constexpr uint64_t kZero = 1;

inline constexpr unsigned kSector = 512;

// The L2 entry of a compressed stream of `size` bytes at byte `offset`: below bit x the offset,
// from bit x on how many more sectors than the first one it touches; x = 62 − (cluster_bits − 8).
constexpr uint64_t compressed_entry(uint64_t offset, uint64_t size, unsigned cluster_bits) {
  uint64_t more_sectors = (offset + size - 1) / kSector - offset / kSector;
  return kCompressed | more_sectors << (62 - (cluster_bits - 8)) | offset;
}

static_assert(compressed_entry(0x50000, 512, 16) == (kCompressed | 0x50000));
static_assert(compressed_entry(0x501ff, 2, 16) == (kCompressed | 1ull << 54 | 0x501ff));

}  // namespace qb
