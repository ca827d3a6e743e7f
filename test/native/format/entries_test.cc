#include "format/entries.h"

#include <doctest/doctest.h>

#include <random>

using namespace qb;

TEST_CASE("compressed_entry: an independent decoder finds the stream in it") {
  std::mt19937_64 random(1);
  for (unsigned bits = 9; bits <= 21; bits++) {
    for (int i = 0; i < 2000; i++) {
      uint64_t size = 1 + random() % ((1u << bits) - 1);
      uint64_t offset = random() % (1ull << (i % 2 == 0 ? 24 : 48));
      uint64_t entry = compressed_entry(offset, size, bits);
      CAPTURE(bits);
      CAPTURE(offset);
      CAPTURE(size);
      // The specification's words: bits 0 to x - 1 and x to 61, x = 62 - (cluster_bits - 8).
      unsigned x = 70 - bits;
      CHECK((entry >> 62) == 1);
      CHECK(entry % (1ull << x) == offset);
      uint64_t sectors = entry << 2 >> 2 >> x;
      uint64_t end = (offset / 512 + sectors + 1) * 512;
      CHECK(end >= offset + size);
      CHECK(end < offset + size + 512);
    }
  }
}
