// The plan as it crosses from TypeScript: eight numbers a row, see lib/plan/rows.ts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qb {

// Shared with lib/plan/rows.ts, DO NOT CHANGE one without the other.
// From kOwnRows on they are of what an image of the chain holds itself; then `file` is that image,
// also where nothing is read.
enum class RowKind : uint8_t {
  kSkip = 0,     // leave it to the backing file, or unallocated
  kZero = 1,     // record it as zero
  kData = 2,     // bytes of `file` at `offset`
  kDeflate = 3,  // part of a compressed cluster of `file`
  kZstd = 4,
};

inline constexpr uint8_t kOwnRows = 8;

// A run of guest bytes. Rows are ordered and contiguous from 0 to the size of the disk.
struct Row {
  RowKind kind = RowKind::kSkip;
  uint64_t start = 0;   // guest, bytes
  uint64_t length = 0;  // guest, bytes
  uint32_t file = 0;    // index of the source file
  uint64_t offset = 0;  // in that file, bytes
  // Compressed only: bytes of the stream (sector-rounded), bytes it expands to, and where in those
  // the run begins.
  uint64_t size = 0;
  uint64_t cluster_size = 0;
  uint64_t within = 0;
  // Of what an image of the chain holds itself, see layers.h: it has a place among the bytes that
  // the disk does not show.
  bool own = false;
  bool hidden = false;
  uint64_t place = 0;  // in Chunk::hidden, bytes

  uint64_t end() const { return start + length; }
  bool reads() const { return kind >= RowKind::kData; }
  bool compressed() const { return kind >= RowKind::kDeflate; }
  // The row from `from` bytes on, cut to `length` bytes.
  Row slice(uint64_t from, uint64_t length) const;
};

inline constexpr size_t kRowColumns = 8;

// Throws Error(EINVAL) for a row that cannot be: the border is checked once, here.
std::vector<Row> unpack_rows(const double* columns, size_t rows, size_t files);

}  // namespace qb
