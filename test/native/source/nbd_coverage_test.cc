#include "source/nbd_coverage.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

using namespace qb;

TEST_CASE("NbdCoverage: chunks of any order, once each") {
  NbdCoverage coverage;
  coverage.restart(1000, 10);
  CHECK_FALSE(coverage.complete());
  CHECK(coverage.add(1008, 2));
  CHECK(coverage.add(1000, 4));
  CHECK(coverage.add(1004, 0));
  CHECK_FALSE(coverage.complete());
  CHECK(coverage.add(1004, 4));
  CHECK(coverage.complete());
  CHECK_FALSE(coverage.add(1009, 1));
  coverage.restart(0, 0);
  CHECK(coverage.complete());
}

TEST_CASE("NbdCoverage: outside of the read") {
  NbdCoverage coverage;
  coverage.restart(1000, 10);
  CHECK_FALSE(coverage.add(999, 1));
  CHECK_FALSE(coverage.add(1010, 1));
  CHECK_FALSE(coverage.add(1009, 2));
  CHECK_FALSE(coverage.add(1000, 11));
  CHECK_FALSE(coverage.add(~0ull, 2));
  CHECK_FALSE(coverage.complete());
}

TEST_CASE("NbdCoverage: agrees with a map of bytes") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; round++) {
    constexpr uint64_t kLength = 24;
    NbdCoverage coverage;
    coverage.restart(100, kLength);
    std::vector<bool> bytes(kLength);
    for (int i = 0; i < 12; i++) {
      const uint64_t from = random() % kLength, length = random() % (kLength - from + 1);
      bool overlaps = false;
      for (uint64_t k = 0; k < length; k++) overlaps = overlaps || bytes[from + k];
      CHECK(coverage.add(100 + from, length) == !overlaps);
      if (overlaps) break;
      for (uint64_t k = 0; k < length; k++) bytes[from + k] = true;
      bool complete = true;
      for (const bool byte : bytes) complete = complete && byte;
      CHECK(coverage.complete() == complete);
    }
  }
}

TEST_CASE("NbdCoverage: more chunks than there is reason for") {
  NbdCoverage coverage;
  coverage.restart(0, 1 << 20);
  uint64_t taken = 0;
  while (coverage.add(taken * 2, 1)) taken++;
  CHECK(taken == (1 << 20) / 512 + 16);
}
