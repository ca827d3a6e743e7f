// The ranges to compare, as they cross from TypeScript: pairs of rows, see lib/compare/rows.ts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "copy/row.h"

namespace qb {

// A run of guest bytes and where each of the two disks has them. A row that reads nothing is zero.
struct RowPair {
  Row sides[2];

  uint64_t start() const { return sides[0].start; }
  uint64_t length() const { return sides[0].length; }
  uint64_t end() const { return sides[0].end(); }
};

// Maximum guest bytes of one pair: bounds the memory for it, and the precision of the offset of
// a read error is known. QEMU compares as many at a time.
inline constexpr uint64_t kMaxPairBytes = 2 << 20;

// Two rows of kRowColumns numbers for each pair. Throws Error(EINVAL) for a pair that cannot be:
// the border is checked once, here.
std::vector<RowPair> unpack_pairs(const double* columns, size_t pairs, size_t files);

}  // namespace qb
