// Big-endian stores: everything in a qcow2 image is big endian (spec, "General").
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace qb {

static_assert(std::endian::native == std::endian::little, "byte order of the supported machines");

inline void put_be16(uint8_t* at, uint16_t value) {
  value = __builtin_bswap16(value);
  memcpy(at, &value, sizeof value);
}

inline void put_be32(uint8_t* at, uint32_t value) {
  value = __builtin_bswap32(value);
  memcpy(at, &value, sizeof value);
}

inline void put_be64(uint8_t* at, uint64_t value) {
  value = __builtin_bswap64(value);
  memcpy(at, &value, sizeof value);
}

inline uint64_t round_down(uint64_t n, uint64_t unit) {
  return n / unit * unit;
}
// Of any `n`, also one that n + unit would overflow.
inline uint64_t div_up(uint64_t n, uint64_t unit) {
  return n / unit + (n % unit != 0 ? 1 : 0);
}
inline uint64_t round_up(uint64_t n, uint64_t unit) {
  return div_up(n, unit) * unit;
}

}  // namespace qb
