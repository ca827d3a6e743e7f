// What a comparison does when something else does not do its part.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "compare/comparing.h"
#include "copy/small_copy.h"

using namespace qb;
using namespace qb::test;

namespace {

Pair small_pair(uint32_t seed = 41) {
  return Pair({.size = 1 << 20, .runs = 40, .seed = seed});
}

// Findings by what is wrong, each as the starts of its pairs.
std::map<FindingKind, std::set<uint64_t>> by_kind(const std::vector<Finding>& findings) {
  std::map<FindingKind, std::set<uint64_t>> sorted;
  for (const Finding& finding : findings) sorted[finding.kind].insert(finding.start);
  return sorted;
}

bool covers(const Request& request, uint64_t offset) {
  return request.offset <= offset && offset < request.offset + length_of(request);
}

}  // namespace

TEST_CASE("CompareJob: of a file with a bad byte just the pairs that need it cannot be read") {
  for (EngineKind kind : engine_kinds()) {
    for (uint64_t bad : {Pair::kLead, Pair::kLead + 300000, Pair::kLead + 700001}) {
      CAPTURE(bad);
      const Pair pair = small_pair();
      size_t count = 0;
      struct stat wanted {};
      REQUIRE(fstat(pair.other().fd(), &wanted) == 0);
      Wrapped wrapped(faults(
          [&](size_t, const Request& request) -> std::optional<Fault> {
            struct stat info {};
            bool there = fstat(request.fd, &info) == 0 && info.st_ino == wanted.st_ino;
            if (!there || !covers(request, bad)) return std::nullopt;
            return Fault{.errnum = EIO};
          },
          count));
      CompareSpec spec = pair.spec();
      spec.engine = kind;
      spec.direct = Direct::kOff;
      spec.granularity = 512;
      Compared result = Comparison(spec).run(pair.pairs());
      CHECK(result.complete);
      std::set<uint64_t> expected;
      std::set<uint64_t> granules = pair.granules(512);
      for (const RowPair& rows : pair.pairs()) {
        if (rows.start() + Pair::kLead > bad || bad >= rows.end() + Pair::kLead) continue;
        expected.insert(rows.start());
      }
      size_t unreadable = 0;
      for (const Finding& finding : result.findings) {
        if (finding.kind == FindingKind::kDiffers) continue;
        unreadable++;
        CHECK(finding.kind == FindingKind::kRead);
        CHECK(finding.errnum == EIO);
        CHECK(expected.contains(finding.start));
      }
      CHECK(unreadable == expected.size());
      CHECK(unreadable == 1);
      // And it is what a comparison that ends with the first finding tells, if nothing comes
      // before.
      spec.granularity = 0;
      const Pair same(Plan::Options{.size = 1 << 20, .runs = 40, .seed = 41}, 0);
      REQUIRE(fstat(same.other().fd(), &wanted) == 0);
      CompareSpec first = same.spec();
      first.engine = kind;
      first.direct = Direct::kOff;
      Compared ended = Comparison(first).run(same.pairs());
      REQUIRE(ended.findings.size() == 1);
      const Finding& only = ended.findings[0];
      CHECK(only.kind == FindingKind::kRead);
      CHECK(only.start + Pair::kLead <= bad);
      CHECK(bad < only.end() + Pair::kLead);
    }
  }
}

TEST_CASE("CompareJob: any single read that fails is no wrong result, and may be done again") {
  for (EngineKind kind : engine_kinds()) {
    const Pair pair = small_pair(42);
    size_t count = 1, unreadable = 0, mended = 0;
    for (size_t n = 0; n < count; n++) {
      CAPTURE(n);
      Wrapped wrapped(faults(FaultEngine::nth(n, {.errnum = ENOMEM}), count));
      CompareSpec spec = pair.spec();
      spec.engine = kind;
      spec.requests = 1;
      spec.memory = 0;
      spec.granularity = 512;
      Compared result = Comparison(spec).run(pair.pairs());
      CHECK(result.complete);
      auto found = by_kind(result.findings);
      std::set<uint64_t> failed = found[FindingKind::kRead];
      (failed.empty() ? mended : unreadable)++;
      for (uint64_t granule : pair.granules(512)) {
        bool seen = false;
        for (const Finding& finding : result.findings) {
          seen |= finding.start < granule + 512 && granule < finding.end();
        }
        CHECK(seen);
      }
    }
    // Reads of one pair, and reads of many.
    CHECK(mended > 3);
    CHECK(count > 10);
  }
}

TEST_CASE("CompareJob: reads that the kernel cuts short go on") {
  for (EngineKind kind : engine_kinds()) {
    for (Direct direct : {Direct::kAuto, Direct::kOff}) {
      const Pair pair = small_pair(43);
      size_t count = 0, cut = 0;
      Wrapped wrapped(faults(
          [&](size_t, const Request& request) -> std::optional<Fault> {
            uint64_t half = length_of(request) / 2 / 4096 * 4096;
            if (half == 0) return std::nullopt;
            cut++;
            return Fault{.bytes = half};
          },
          count));
      CompareSpec spec = pair.spec();
      spec.engine = kind;
      spec.direct = direct;
      spec.granularity = 512;
      Compared result = Comparison(spec).run(pair.pairs());
      CHECK(result.complete);
      CHECK((granules_of(result.findings, 512) == pair.granules(512)));
      CHECK(cut > 10);
    }
  }
}

TEST_CASE("CompareJob: a file that shrank cannot be read there, and is not taken for zeroes") {
  for (EngineKind kind : engine_kinds()) {
    for (Direct direct : {Direct::kAuto, Direct::kOff}) {
      const Pair pair = small_pair(44);
      CompareSpec spec = pair.spec();
      spec.engine = kind;
      spec.direct = direct;
      spec.granularity = 512;
      constexpr uint64_t kEnd = 600123;
      pair.other().truncate(Pair::kLead + kEnd);
      Compared result = Comparison(spec).run(pair.pairs());
      CHECK(result.complete);
      std::set<uint64_t> expected;
      for (const RowPair& rows : pair.pairs()) {
        if (rows.end() > kEnd) expected.insert(rows.start());
      }
      CHECK((by_kind(result.findings)[FindingKind::kShrank] == expected));
    }
  }
}

TEST_CASE("CompareJob: a cluster that does not expand is told, once for each pair in it") {
  const Pair pair = small_pair(45);
  CompareSpec spec = pair.spec();
  spec.granularity = 512;
  std::set<uint64_t> expected;
  const Row* broken = nullptr;
  for (const RowPair& rows : pair.pairs()) {
    for (const Row& row : rows.sides) {
      if (!row.compressed()) continue;
      if (!broken) broken = &row;
      if (row.offset == broken->offset) expected.insert(rows.start());
    }
  }
  REQUIRE(broken);
  pair.plan().source(2).write(broken->offset, Bytes(200, 0xff));
  Compared result = Comparison(spec).run(pair.pairs());
  CHECK(result.complete);
  auto found = by_kind(result.findings)[FindingKind::kDamaged];
  for (uint64_t start : expected) CHECK(found.contains(start));
}

TEST_CASE("CompareJob: cancelled at any request it ends") {
  for (EngineKind kind : engine_kinds()) {
    const Pair pair = small_pair(46);
    size_t count = 1;
    for (size_t n = 0; n < count; n++) {
      CAPTURE(n);
      CompareJob* job = nullptr;
      Wrapped wrapped(faults(
          [&](size_t i, const Request&) -> std::optional<Fault> {
            if (i == n) job->cancel();
            return std::nullopt;
          },
          count));
      CompareSpec spec = pair.spec();
      spec.engine = kind;
      spec.memory = 1 << 20;
      spec.granularity = 512;
      Comparison comparison(spec);
      job = &comparison.job();
      // No end of the plan, so that only the cancelling can end it.
      Compared result = comparison.run(pair.pairs(), 10, false);
      CHECK(!result.complete);
      CHECK(result.failure == Failure::kCancelled);
    }
    CHECK(count > 5);
  }
}

TEST_CASE("CompareJob: destroyed at any time") {
  std::mt19937 random(47);
  const Pair pair = small_pair(48);
  for (int round = 0; round < 40; round++) {
    CompareSpec spec = pair.spec();
    spec.engine = engine_kinds()[static_cast<size_t>(round) % engine_kinds().size()];
    spec.granularity = round % 2 == 0 ? 512 : 0;
    {
      CompareJob job(spec, Wrapped::make);
      job.start([] {});
      job.push(pair.pairs());
      if (round % 3 == 0) job.close();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    }
  }
}
