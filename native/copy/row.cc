#include "copy/row.h"

#include <cerrno>
#include <cmath>

#include "base/error.h"

namespace qb {

namespace {

// The largest cluster of the format: bounds the memory for one compressed row.
constexpr uint64_t kMostClusterSize = 2 << 20;

// As far as JavaScript counts whole numbers.
constexpr uint64_t kMostNumber = (1ull << 53) - 1;

uint64_t whole(double number, uint64_t most = kMostNumber) {
  // Also false for NaN.
  bool sound = number >= 0 && number <= static_cast<double>(most) && std::trunc(number) == number;
  if (!sound) throw Error(EINVAL, "row of the plan");
  return static_cast<uint64_t>(number);
}

void check(const Row& row, size_t files) {
  bool sound = row.length > 0;
  if (row.reads() || row.own) sound = sound && row.file < files;
  if (row.compressed()) {
    sound = sound && row.size > 0 && row.size <= 2 * kMostClusterSize &&
            row.cluster_size <= kMostClusterSize && row.within + row.length <= row.cluster_size;
  }
  if (!sound) throw Error(EINVAL, "row of the plan");
}

}  // namespace

Row Row::slice(uint64_t from, uint64_t wanted) const {
  Row part = *this;
  part.start += from;
  part.length = wanted;
  if (compressed()) {
    part.within += from;
  } else {
    part.offset += from;
  }
  return part;
}

std::vector<Row> unpack_rows(const double* columns, size_t rows, size_t files) {
  std::vector<Row> unpacked;
  unpacked.reserve(rows);
  for (size_t i = 0; i < rows; i++, columns += kRowColumns) {
    Row row;
    auto most = static_cast<uint64_t>(RowKind::kZstd);
    row.own = columns[0] >= kOwnRows;
    row.kind = static_cast<RowKind>(whole(columns[0] - (row.own ? kOwnRows : 0), most));
    row.start = whole(columns[1]);
    row.length = whole(columns[2]);
    row.file = static_cast<uint32_t>(whole(columns[3], UINT32_MAX));
    row.offset = whole(columns[4]);
    row.size = whole(columns[5]);
    row.cluster_size = whole(columns[6]);
    row.within = whole(columns[7]);
    check(row, files);
    unpacked.push_back(row);
  }
  return unpacked;
}

}  // namespace qb
