#include "image/refcounts.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "base/error.h"
#include "image/memory_output.h"

using namespace qb;
using namespace qb::test;

namespace {

uint64_t number(MemoryOutput& output, uint64_t at, unsigned size) {
  uint8_t bytes[8];
  output.read(at, bytes, size);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++) value = value << 8 | bytes[i];
  return value;
}

// The count the image on disk gives a cluster.
uint64_t count_of(MemoryOutput& output, const Refcounts& refcounts, unsigned bits,
                  uint64_t cluster) {
  uint64_t per_block = 1ull << (bits - 1);
  uint64_t slots = (static_cast<uint64_t>(refcounts.table_clusters()) << bits) / 8;
  if (cluster / per_block >= slots) return 0;
  uint64_t block = number(output, refcounts.table_offset() + cluster / per_block * 8, 8);
  return block == 0 ? 0 : number(output, block + cluster % per_block * 2, 2);
}

}  // namespace

TEST_CASE("Refcounts: counts of clusters, blocks and table, whatever is written when") {
  std::mt19937 random(3);
  for (int round = 0; round < 300; round++) {
    unsigned bits = 9 + random() % 3;
    CAPTURE(round);
    BufferPool pool;
    MemoryOutput output;
    Refcounts refcounts(bits, pool, output);
    // As every image begins: cluster 0 is the header's, a block at offset 0 would be none.
    refcounts.add(0);
    std::map<uint64_t, uint64_t> expected = {{0, 1}};
    uint64_t end = 1, settled = 0;
    uint64_t steps = random() % 40;
    for (uint64_t i = 0; i < steps; i++) {
      uint64_t run = 1 + random() % 100;
      refcounts.add(end, run);
      for (uint64_t c = end; c < end + run; c++) expected[c]++;
      uint64_t again = end + random() % run;
      refcounts.add(again);
      CHECK(refcounts.get(again) == ++expected[again]);
      end += run;
      if (random() % 3 != 0) continue;
      // A cluster may stay open for more references.
      settled = std::max(settled, end - random() % std::min<uint64_t>(end, 70));
      uint64_t after = refcounts.write_settled(settled, end);
      for (uint64_t c = end; c < after; c++) expected[c]++;
      end = after;
    }
    uint64_t extra = random() % 300;
    uint64_t table_end = refcounts.finish(end, extra);
    CHECK(refcounts.table_offset() == (table_end - refcounts.table_clusters()) << bits);
    for (uint64_t c = end; c < table_end + extra; c++) expected[c]++;
    output.require_sound(1ull << bits);
    CHECK(output.length() == table_end << bits);
    uint64_t wrong = 0;
    for (uint64_t c = 0; c < table_end + extra + 2000; c++) {
      auto at = expected.find(c);
      if (count_of(output, refcounts, bits, c) != (at == expected.end() ? 0 : at->second)) wrong++;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("Refcounts: a block that must count itself into being") {
  // 255 clusters and the table fill a block of 256, so that the block itself needs another one.
  for (uint64_t end = 1; end < 1200; end++) {
    BufferPool pool;
    MemoryOutput output;
    Refcounts refcounts(9, pool, output);
    refcounts.add(0, end);
    uint64_t table_end = refcounts.finish(end, 1);
    uint64_t blocks = table_end - end - refcounts.table_clusters();
    CAPTURE(end);
    CHECK(blocks == (table_end + 1 + 255) / 256);
    CHECK(count_of(output, refcounts, 9, table_end) == 1);
    CHECK(count_of(output, refcounts, 9, table_end + 1) == 0);
  }
}

TEST_CASE("Refcounts: set() gives a count, get() sees it until its block is written") {
  BufferPool pool;
  MemoryOutput output;
  Refcounts refcounts(9, pool, output);
  refcounts.add(0, 300);
  refcounts.set(7, Refcounts::kMost);
  CHECK(refcounts.get(7) == 65535);
  CHECK(refcounts.write_settled(255, 300) == 300);
  CHECK(refcounts.get(7) == 65535);
  CHECK(refcounts.write_settled(256, 300) == 301);
  CHECK_THROWS(refcounts.get(7));
  CHECK(refcounts.get(300) == 1);
  refcounts.finish(301, 0);
  CHECK(count_of(output, refcounts, 9, 7) == 65535);
}

TEST_CASE("Refcounts: a table larger than QEMU opens is refused") {
  BufferPool pool;
  MemoryOutput output;
  Refcounts refcounts(9, pool, output);
  // 8 MiB of table are 1 Mi blocks of 256 clusters.
  CHECK_THROWS_AS(refcounts.finish((1 << 20) * 256ull, 1), Error);
  CHECK(output.puts().empty());
}
