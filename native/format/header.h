// The header cluster of a fresh version 3 image. Pure encoding, no I/O.
// Source of every field: QEMU's docs/interop/qcow2.txt, "Header" and "Header extensions".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qb {

inline constexpr unsigned kMinClusterBits = 9;   // 512 bytes
inline constexpr unsigned kMaxClusterBits = 21;  // 2 MiB
// 16 bits, as QEMU makes them.
inline constexpr unsigned kRefcountOrder = 4;
// QEMU refuses larger tables (QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE).
inline constexpr uint64_t kMaxL1Bytes = 32 << 20;
inline constexpr uint64_t kMaxReftableBytes = 8 << 20;
// Bytes of a backing file's name.
inline constexpr size_t kMaxBackingName = 1023;

// Values on disk (compression_type), DO NOT CHANGE.
enum class CompressionType : uint8_t { kZlib = 0, kZstd = 1 };

struct Header {
  unsigned cluster_bits = 16;
  uint64_t size = 0;  // virtual size, bytes, a multiple of 512
  uint64_t l1_offset = 0;
  uint32_t l1_size = 0;  // entries
  uint64_t reftable_offset = 0;
  uint32_t reftable_clusters = 0;
  CompressionType compression = CompressionType::kZlib;
  std::string backing_file;    // empty: none
  std::string backing_format;  // "raw" or "qcow2"
};

// One cluster: header, extensions (backing format, feature names where the cluster has room), the
// backing file's name right behind them, zeroes.
// Throws Error(ENAMETOOLONG) if the name does not fit into the cluster.
std::vector<uint8_t> encode_header(const Header& header);

}  // namespace qb
