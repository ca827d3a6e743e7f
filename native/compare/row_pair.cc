#include "compare/row_pair.h"

#include <cerrno>

#include "base/error.h"

namespace qb {

std::vector<RowPair> unpack_pairs(const double* columns, size_t pairs, size_t files) {
  std::vector<Row> rows = unpack_rows(columns, 2 * pairs, files);
  std::vector<RowPair> unpacked;
  unpacked.reserve(pairs);
  for (size_t i = 0; i < pairs; i++) {
    RowPair pair{{rows[2 * i], rows[2 * i + 1]}};
    bool same =
        pair.sides[0].start == pair.sides[1].start && pair.sides[0].length == pair.sides[1].length;
    if (!same || pair.length() > kMaxPairBytes) throw Error(EINVAL, "row of the comparison");
    unpacked.push_back(pair);
  }
  return unpacked;
}

}  // namespace qb
