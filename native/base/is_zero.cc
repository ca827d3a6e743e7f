#include "base/is_zero.h"

#include <cstdint>
#include <cstring>

namespace qb {
namespace {

// The register width of every x86-64 and arm64 processor. Written as a vector, because gcc 12
// makes one of a plain loop only at -O3, and not memcmp(data, data + 1, size - 1), because musl's
// goes byte by byte.
using Vector = uint64_t __attribute__((vector_size(16)));

// Looked at in one go, few enough vectors that -O2 unrolls them. Measured over 64 KiB in cache: 67
// GB/s at -O3 and 38 at -O2; 8-byte words give 19 there, glibc's memcmp 55. From memory all of them
// wait for the memory, 16 GB/s. Real data is mostly found out within the first block.
constexpr size_t kBlock = 64;

bool is_zero_block(const uint8_t* at) {
  Vector all{};
  for (size_t i = 0; i < kBlock; i += sizeof(Vector)) {
    Vector part;
    std::memcpy(&part, at + i, sizeof part);
    all |= part;
  }
  return (all[0] | all[1]) == 0;
}

}  // namespace

bool is_zero(const void* data, size_t size) {
  const auto* at = static_cast<const uint8_t*>(data);
  for (; size >= kBlock; at += kBlock, size -= kBlock) {
    if (!is_zero_block(at)) return false;
  }
  uint8_t rest = 0;
  for (size_t i = 0; i < size; ++i) rest |= at[i];
  return rest == 0;
}

}  // namespace qb
