#include "image/packer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "image/memory_output.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr unsigned kBits = 12;
constexpr uint64_t kCluster = 1 << kBits;

struct Fixture {
  // Memory from the pool holds what it was used for before.
  Fixture() {
    BufferRef used = pool.get(kCluster);
    std::fill_n(used->data(), kCluster, uint8_t{0xff});
  }

  BufferPool pool;
  MemoryOutput output;
  Refcounts refcounts{kBits, pool, output};
  Packer packer{kBits, pool, output, refcounts};
  uint64_t end = 1;

  uint64_t add(const Bytes& stream) { return packer.add(stream.data(), stream.size(), end); }
  // As any other part of the writer takes a cluster.
  uint64_t take() {
    refcounts.add(end);
    return end++;
  }
  bool holds(uint64_t offset, const Bytes& stream) {
    Bytes read(stream.size());
    output.read(offset, read.data(), read.size());
    return read == stream;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "Packer: streams follow each other without gaps") {
  CHECK(packer.settled(end) == 1);
  CHECK(add(Bytes(100, 1)) == kCluster);
  CHECK(add(Bytes(1, 2)) == kCluster + 100);
  CHECK(add(Bytes(411, 3)) == kCluster + 101);
  CHECK(add(Bytes(5, 4)) == kCluster + 512);
  CHECK(end == 2);
  CHECK(packer.settled(end) == 1);
  CHECK(output.puts().empty());
  packer.close();
  CHECK(packer.settled(end) == 2);
  CHECK(refcounts.get(1) == 4);
  REQUIRE(output.puts().size() == 1);
  CHECK(output.puts()[0].offset == kCluster);
  CHECK(output.puts()[0].size == kCluster);
  CHECK(holds(kCluster + 101, Bytes(411, 3)));
  // What the streams leave over is zero, not what the pool's memory held.
  CHECK(holds(kCluster + 517, Bytes(kCluster - 517, 0)));
  packer.close();
  CHECK(output.puts().size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "Packer: a stream that reaches into the next cluster counts for both") {
  CHECK(add(random_bytes(4000, 1)) == kCluster);
  CHECK(add(random_bytes(3000, 2)) == kCluster + 4000);
  CHECK(end == 3);
  CHECK(refcounts.get(1) == 2);
  CHECK(refcounts.get(2) == 1);
  CHECK(packer.settled(end) == 2);
  packer.close();
  CHECK(holds(kCluster, random_bytes(4000, 1)));
  CHECK(holds(kCluster + 4000, random_bytes(3000, 2)));
}

TEST_CASE_FIXTURE(Fixture, "Packer: a stream that just fills the cluster closes it") {
  add(Bytes(4000, 1));
  CHECK(add(Bytes(96, 2)) == kCluster + 4000);
  CHECK(output.puts().size() == 1);
  CHECK(packer.settled(end) == 2);
  CHECK(refcounts.get(1) == 2);
  CHECK(add(Bytes(10, 3)) == 2 * kCluster);
}

TEST_CASE_FIXTURE(Fixture, "Packer: with another cluster behind the open one no stream straddles") {
  add(Bytes(4000, 1));
  CHECK(take() == 2);
  // What fits still goes in.
  CHECK(add(Bytes(50, 2)) == kCluster + 4000);
  CHECK(output.puts().empty());
  CHECK(add(Bytes(47, 3)) == 3 * kCluster);
  CHECK(refcounts.get(1) == 2);
  CHECK(refcounts.get(2) == 1);
  CHECK(refcounts.get(3) == 1);
  REQUIRE(output.puts().size() == 1);
  CHECK(holds(kCluster + 4050, Bytes(46, 0)));
}

TEST_CASE_FIXTURE(Fixture, "Packer: a cluster is referenced as often as a refcount can count") {
  refcounts.add(1);
  end = 1;
  add(Bytes(1, 1));
  refcounts.set(1, Refcounts::kMost - 1);
  CHECK(add(Bytes(1, 2)) == kCluster + 1);
  CHECK(refcounts.get(1) == Refcounts::kMost);
  CHECK(add(Bytes(1, 3)) == 2 * kCluster);
  CHECK(refcounts.get(1) == Refcounts::kMost);
  // Nor may a stream that begins in it reach beyond.
  refcounts.set(2, Refcounts::kMost);
  CHECK(add(Bytes(4095, 4)) == 3 * kCluster);
}

TEST_CASE_FIXTURE(Fixture, "Packer: random streams among other clusters keep their bytes") {
  std::mt19937 random(4);
  std::vector<std::pair<uint64_t, Bytes>> placed;
  std::vector<uint64_t> expected(1, 0), taken;
  for (uint32_t i = 0; i < 3000; i++) {
    if (random() % 10 == 0) {
      taken.push_back(take());
      continue;
    }
    Bytes stream = random_bytes(1 + random() % (i % 3 == 0 ? 4095 : 500), i);
    uint64_t offset = add(stream);
    placed.emplace_back(offset, stream);
    expected.resize(end);
    for (uint64_t c = offset / kCluster; c <= (offset + stream.size() - 1) / kCluster; c++) {
      expected[c]++;
    }
  }
  packer.close();
  output.require_sound(kCluster);
  expected.resize(end);
  uint64_t stream_end = 0;
  for (const auto& [offset, stream] : placed) {
    CHECK(offset >= stream_end);
    CHECK(holds(offset, stream));
    stream_end = offset + stream.size();
  }
  for (uint64_t cluster : taken) {
    CHECK(expected[cluster] == 0);
    expected[cluster] = 1;
  }
  for (uint64_t c = 1; c < end; c++) CHECK(refcounts.get(c) == expected[c]);
}
