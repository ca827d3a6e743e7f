// Rows of a plan as they cross from JavaScript: any numbers. Those that are taken must be safe to
// copy by.
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "copy/row.h"

using namespace qb;

namespace {

constexpr uint64_t kMostClusterSize = 2 << 20;

void require(bool holds) {
  if (!holds) abort();
}

// Two bytes a number: whole numbers around powers of two, or eight bytes of any.
std::vector<double> numbers(const uint8_t* data, size_t size, bool any) {
  std::vector<double> made;
  if (any) {
    made.resize(size / sizeof(double));
    if (!made.empty()) memcpy(made.data(), data, made.size() * sizeof(double));
    return made;
  }
  for (size_t i = 0; i + 1 < size; i += 2) {
    const int near = data[i + 1] % 7 - 3;
    made.push_back(data[i] < 64 ? data[i] : static_cast<double>(1ull << data[i] % 64) + near);
  }
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t files = data[0] >> 1;
  const std::vector<double> columns = numbers(data + 1, size - 1, data[0] & 1);
  try {
    for (const Row& row : unpack_rows(columns.data(), columns.size() / kRowColumns, files)) {
      require(row.length > 0 && row.end() > row.start);
      if (row.reads()) require(row.file < files && row.offset + row.length > row.offset);
      if (!row.compressed()) continue;
      require(row.size > 0 && row.size <= 2 * kMostClusterSize);
      require(row.cluster_size <= kMostClusterSize && row.length <= row.cluster_size);
      require(row.within <= row.cluster_size - row.length);
    }
  } catch (const Error& error) {
    require(error.errnum() == EINVAL);
  }
  return 0;
}
