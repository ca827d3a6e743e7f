#include "compare/job.h"

#include <doctest/doctest.h>

#include <array>

#include "compare/comparing.h"
#include "copy/small_copy.h"
#include "support/engine_kinds.h"

using namespace qb;
using namespace qb::test;

namespace {

Plan::Options options_of(uint32_t seed) {
  return {.size = (1500000 + seed * 7919) / 512 * 512,
          .runs = seed % 4 == 0 ? 300u : 30u,
          .seed = seed};
}

// Varies what must not matter.
CompareSpec spec_of(const Pair& pair, uint32_t seed) {
  CompareSpec spec = pair.spec();
  spec.engine = engine_kinds()[seed % engine_kinds().size()];
  spec.direct = seed / 2 % 2 == 0 ? Direct::kAuto : Direct::kOff;
  spec.requests = 1 + seed % 16;
  if (seed % 3 == 0) spec.memory = 0;
  return spec;
}

}  // namespace

TEST_CASE("CompareJob: finds exactly the granules that differ, whatever the engine and the cache") {
  for (uint32_t seed = 0; seed < 32; seed++) {
    CAPTURE(seed);
    const Pair pair(options_of(seed));
    CompareSpec spec = spec_of(pair, seed);
    spec.granularity = std::array{512u, 4096u, 65536u, 1u << 20}[seed / 3 % 4];
    Compared result = Comparison(spec).run(pair.pairs(), 1 + seed % 40);
    CHECK(result.complete);
    CHECK(result.position == pair.bytes().size());
    CHECK((granules_of(result.findings, spec.granularity) == pair.granules(spec.granularity)));
  }
}

TEST_CASE("CompareJob: without a granularity it ends with the first sector that differs") {
  for (uint32_t seed = 0; seed < 24; seed++) {
    CAPTURE(seed);
    const Pair pair(options_of(seed), seed % 5);
    Comparison comparison(spec_of(pair, seed));
    Compared result = comparison.run(pair.pairs(), 1 + seed % 40);
    CHECK(result.complete);
    auto first = std::find_if(pair.pairs().begin(), pair.pairs().end(), [&](const RowPair& rows) {
      return pair.differs(rows.start(), rows.end());
    });
    if (first == pair.pairs().end()) {
      CHECK(result.findings.empty());
      CHECK(result.position == pair.bytes().size());
      continue;
    }
    uint64_t at = first->start();
    while (!pair.differs(at, std::min(at + 512, first->end()))) at += 512;
    REQUIRE(result.findings.size() == 1);
    CHECK(result.findings[0].kind == FindingKind::kDiffers);
    CHECK(result.findings[0].start == at);
    CHECK(result.position == first->start());
  }
}

TEST_CASE("CompareJob: what a file lacks reads as zero, also for the codecs") {
  const TempFile a, b;
  a.write(0, Bytes(5000, 1));
  Bytes padded(5000, 1);
  padded.resize(3 << 20);
  b.write(0, padded);
  for (Direct direct : {Direct::kAuto, Direct::kOff}) {
    CompareSpec spec;
    spec.sources = {{FileStore{a.fd()}, 5000}, {FileStore{b.fd()}, padded.size()}};
    spec.direct = direct;
    std::vector<RowPair> pairs;
    for (uint64_t at : {uint64_t{0}, uint64_t{1} << 20, uint64_t{2} << 20}) {
      Row row{.kind = RowKind::kData, .start = at, .length = 1 << 20, .offset = at};
      Row other = row;
      other.file = 1;
      pairs.push_back({{row, other}});
    }
    CHECK(Comparison(spec).run(pairs).findings.empty());
    // Zeroes are no stream.
    Row stream{.kind = RowKind::kZstd,
               .start = 3 << 20,
               .length = 4096,
               .offset = 6000,
               .size = 512,
               .cluster_size = 4096};
    Row zero{.kind = RowKind::kZero, .start = 3 << 20, .length = 4096};
    pairs.push_back({{zero, stream}});
    Compared result = Comparison(spec).run(pairs);
    REQUIRE(result.findings.size() == 1);
    CHECK(result.findings[0].kind == FindingKind::kDamaged);
    CHECK(result.findings[0].side == 1);
  }
}

TEST_CASE("CompareJob: more findings than are taken at once: it waits, and none is lost") {
  constexpr uint64_t kSize = 24 << 20;
  const TempFile file;
  Bytes bytes(kSize);
  for (size_t at = 0; at < bytes.size(); at += 1024) bytes[at] = 1;
  file.write(0, bytes);
  CompareSpec spec;
  spec.sources = {{FileStore{file.fd()}, kSize}};
  spec.granularity = 512;
  spec.memory = 24 << 20;
  std::vector<RowPair> pairs;
  for (uint64_t at = 0; at < kSize; at += 1 << 20) {
    Row row{.kind = RowKind::kData, .start = at, .length = 1 << 20, .offset = at};
    pairs.push_back({{row, {.kind = RowKind::kZero, .start = at, .length = 1 << 20}}});
  }
  CompareJob job(spec);
  std::mutex mutex;
  std::condition_variable changed;
  job.start([&] {
    const std::lock_guard lock(mutex);
    changed.notify_all();
  });
  job.push(pairs);
  job.close();
  std::vector<Finding> all;
  size_t largest = 0;
  bool ended = false;
  while (!ended) {
    std::unique_lock lock(mutex);
    // Late on purpose: only when there is no room for more, or nothing more comes.
    bool came = changed.wait_for(lock, std::chrono::minutes(1), [&] {
      ended = job.ended();
      return ended || job.position() >= (all.size() * 1024) + (8 << 20);
    });
    REQUIRE(came);
    lock.unlock();
    std::vector<Finding> taken = job.take_findings();
    largest = std::max(largest, taken.size());
    all.insert(all.end(), taken.begin(), taken.end());
  }
  CHECK(all.size() == kSize / 1024);
  CHECK(largest <= 8192 + 1024);
  for (size_t i = 0; i < all.size(); i++) CHECK(all[i].start == i * 1024);
}

TEST_CASE("CompareJob: pairs in the wrong order end it") {
  const Pair pair(options_of(1));
  std::vector<RowPair> pairs = pair.pairs();
  std::swap(pairs[3], pairs[4]);
  Compared result = Comparison(pair.spec()).run(pairs);
  CHECK(!result.complete);
  CHECK(result.failure == Failure::kOther);
}

TEST_CASE("unpack_pairs: only pairs of the same bytes, and not too many of them") {
  std::array<double, 2 * kRowColumns> rows{};
  auto row = [&](size_t side, double start, double length) {
    rows[side * kRowColumns] = 2;
    rows[side * kRowColumns + 1] = start;
    rows[side * kRowColumns + 2] = length;
  };
  row(0, 512, 1024);
  row(1, 512, 1024);
  CHECK(unpack_pairs(rows.data(), 1, 1).front().end() == 1536);
  CHECK_THROWS_AS(unpack_pairs(rows.data(), 1, 0), Error);
  row(1, 512, 512);
  CHECK_THROWS_AS(unpack_pairs(rows.data(), 1, 1), Error);
  row(1, 0, 1024);
  CHECK_THROWS_AS(unpack_pairs(rows.data(), 1, 1), Error);
  row(0, 0, kMaxPairBytes + 1);
  row(1, 0, kMaxPairBytes + 1);
  CHECK_THROWS_AS(unpack_pairs(rows.data(), 1, 1), Error);
}
