// Test data.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <random>
#include <vector>

namespace qb::test {

using Bytes = std::vector<uint8_t>;

// Incompressible, the same for the same seed.
inline Bytes random_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Compresses about like text.
inline Bytes text_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) {
    const bool repeats = i >= 64 && random() % 8 != 0;
    bytes[i] =
        repeats ? bytes[i - 1 - random() % 3 * 21] : static_cast<uint8_t>('a' + random() % 16);
  }
  return bytes;
}

inline iovec iovec_of(Bytes& bytes) {
  return {bytes.data(), bytes.size()};
}

}  // namespace qb::test
