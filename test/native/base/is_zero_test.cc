#include "base/is_zero.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

using qb::is_zero;

TEST_CASE("is_zero: nothing is zero") {
  CHECK(is_zero(nullptr, 0));
}

TEST_CASE("is_zero: finds one bit at any place of any size and address") {
  for (size_t size = 1; size <= 300; ++size) {
    for (size_t shift = 0; shift < 17; shift += 3) {
      // Ones around, which are not to be looked at.
      std::vector<uint8_t> memory(shift + size + 1, 0xff);
      uint8_t* data = memory.data() + shift;
      std::fill(data, data + size, 0);
      REQUIRE(is_zero(data, size));
      for (size_t i = 0; i < size; ++i) {
        data[i] = static_cast<uint8_t>(1U << i % 8);
        REQUIRE_FALSE(is_zero(data, size));
        data[i] = 0;
      }
    }
  }
}

TEST_CASE("is_zero: a cluster with its last byte set") {
  std::vector<uint8_t> cluster(2 << 20);
  CHECK(is_zero(cluster.data(), cluster.size()));
  cluster.back() = 1;
  CHECK_FALSE(is_zero(cluster.data(), cluster.size()));
}
