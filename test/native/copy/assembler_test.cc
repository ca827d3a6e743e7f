#include "copy/assembler.h"

#include <doctest/doctest.h>

#include <array>
#include <random>

#include "base/error.h"

using namespace qb;

namespace {

constexpr uint64_t kUnit = 4096, kMost = 4 * kUnit;

Row row_between(RowKind kind, uint64_t start, uint64_t end) {
  return {.kind = kind, .start = start, .length = end - start, .offset = 100000 + start};
}

std::vector<Step> steps_of(Assembler& assembler) {
  std::vector<Step> steps;
  while (std::optional<Step> step = assembler.next()) steps.push_back(std::move(*step));
  return steps;
}

// All steps of a disk that ends with the last row.
std::vector<Step> steps_of(const std::vector<Row>& rows, bool has_backing = false) {
  Assembler assembler(kUnit, kMost, rows.empty() ? 0 : rows.back().end(), has_backing);
  assembler.feed(rows);
  std::vector<Step> steps = steps_of(assembler);
  CHECK(assembler.complete());
  return steps;
}

constexpr auto kSkip = RowKind::kSkip, kZero = RowKind::kZero, kData = RowKind::kData;

// One byte of the disk as a plan sees it.
struct GuestByte {
  RowKind kind;
  uint32_t file;
  uint64_t at;      // offset in the file, or in what the stream expands to
  uint64_t stream;  // offset of the stream

  bool operator==(const GuestByte&) const = default;
};

GuestByte byte_of(const Row& row, uint64_t guest) {
  uint64_t into = guest - row.start;
  if (!row.reads()) return {row.kind, 0, 0, 0};
  if (row.compressed()) return {row.kind, row.file, row.within + into, row.offset};
  return {row.kind, row.file, row.offset + into, 0};
}

}  // namespace

TEST_CASE("Assembler: whole units go through as they are") {
  std::vector<Step> steps =
      steps_of({row_between(kSkip, 0, 2 * kUnit), row_between(kData, 2 * kUnit, 3 * kUnit),
                row_between(kZero, 3 * kUnit, 5 * kUnit), row_between(kData, 5 * kUnit, 6 * kUnit)},
               true);
  REQUIRE(steps.size() == 4);
  CHECK(steps[0].kind == Step::Kind::kSkip);
  CHECK(steps[1].kind == Step::Kind::kData);
  CHECK(steps[1].rows.size() == 1);
  CHECK(steps[1].rows[0].offset == 100000 + 2 * kUnit);
  CHECK(steps[2].kind == Step::Kind::kZero);
  CHECK(steps[2].start == 3 * kUnit);
  CHECK(steps[2].length == 2 * kUnit);
  CHECK(steps[3].kind == Step::Kind::kData);
}

TEST_CASE("Assembler: an empty disk has no steps and is complete") {
  CHECK(steps_of(std::vector<Row>{}).empty());
}

TEST_CASE("Assembler: data are cut into steps of at most so many bytes") {
  std::vector<Step> steps = steps_of({row_between(kData, 0, 2 * kMost + kUnit + 5)});
  REQUIRE(steps.size() == 3);
  CHECK(steps[0].length == kMost);
  CHECK(steps[1].length == kMost);
  CHECK(steps[2].length == kUnit + 5);
  CHECK(steps[2].rows.at(0).offset == 100000 + 2 * kMost);
}

TEST_CASE("Assembler: runs that belong together become one, however they come") {
  Assembler assembler(kUnit, kMost, 1 << 30, false);
  for (uint64_t at = 0; at < 1 << 30; at += 1 << 20) {
    assembler.feed(
        {row_between(kZero, at, at + 1000), row_between(kZero, at + 1000, at + (1 << 20))});
  }
  std::vector<Step> steps = steps_of(assembler);
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].length == 1 << 30);
}

TEST_CASE("Assembler: pieces of a unit are put together, the rest of it is zero") {
  std::vector<Step> steps = steps_of({row_between(kZero, 0, 100), row_between(kData, 100, 200),
                                      row_between(kSkip, 200, 2 * kUnit + 50),
                                      row_between(kData, 2 * kUnit + 50, 2 * kUnit + 60),
                                      row_between(kZero, 2 * kUnit + 60, 9 * kUnit)});
  REQUIRE(steps.size() == 4);
  CHECK(steps[0].kind == Step::Kind::kData);
  CHECK(steps[0].length == kUnit);
  REQUIRE(steps[0].rows.size() == 1);
  CHECK(steps[0].rows[0].start == 100);
  CHECK(steps[1].kind == Step::Kind::kSkip);
  CHECK(steps[1].length == kUnit);
  CHECK(steps[2].start == 2 * kUnit);
  CHECK(steps[2].rows.at(0).length == 10);
  CHECK(steps[3].kind == Step::Kind::kZero);
  CHECK(steps[3].length == 6 * kUnit);
}

TEST_CASE("Assembler: zero and skipped bytes in one unit are no data, for nothing would be read") {
  std::vector<Step> steps = steps_of({row_between(kZero, 0, 100), row_between(kSkip, 100, kUnit),
                                      row_between(kSkip, kUnit, 3 * kUnit),
                                      row_between(kData, 3 * kUnit, 3 * kUnit + 1)});
  REQUIRE(steps.size() == 3);
  CHECK(steps[0].kind == Step::Kind::kZero);
  CHECK(steps[0].length == kUnit);
  CHECK(steps[1].kind == Step::Kind::kSkip);
}

TEST_CASE("Assembler: a last unit cut by the disk's end may be skipped or zero") {
  for (RowKind kind : {kSkip, kZero}) {
    std::vector<Step> steps =
        steps_of({row_between(kData, 0, kUnit), row_between(kind, kUnit, kUnit + 5)}, true);
    REQUIRE(steps.size() == 2);
    CHECK(steps[1].kind == (kind == kZero ? Step::Kind::kZero : Step::Kind::kSkip));
    CHECK(steps[1].length == 5);
  }
}

TEST_CASE("Assembler: part of a unit cannot be left to the backing file") {
  for (const std::vector<Row>& rows :
       {std::vector<Row>{row_between(kSkip, 0, 100), row_between(kData, 100, kUnit)},
        std::vector<Row>{row_between(kData, 0, 100), row_between(kSkip, 100, kUnit)},
        std::vector<Row>{row_between(kZero, 0, 100), row_between(kSkip, 100, kUnit)},
        std::vector<Row>{row_between(kSkip, 0, kUnit + 1),
                         row_between(kZero, kUnit + 1, 3 * kUnit)},
        std::vector<Row>{row_between(kData, 0, kUnit), row_between(kData, kUnit, kUnit + 1),
                         row_between(kSkip, kUnit + 1, kUnit + 2)}}) {
    CHECK_THROWS_AS(steps_of(rows, true), Error);
    CHECK_NOTHROW(steps_of(rows, false));
  }
}

TEST_CASE("Assembler: rows continue where the last ones ended, up to the end of the disk") {
  auto feed = [](std::vector<Row> rows) {
    Assembler assembler(kUnit, kMost, 10 * kUnit, false);
    assembler.feed({row_between(kZero, 0, kUnit)});
    try {
      assembler.feed(rows);
    } catch (const Error& error) {
      return error.errnum();
    }
    return 0;
  };
  CHECK(feed({row_between(kZero, kUnit, 2 * kUnit), row_between(kData, 2 * kUnit, 10 * kUnit)}) ==
        0);
  CHECK(feed({row_between(kZero, 2 * kUnit, 3 * kUnit)}) == EINVAL);
  CHECK(feed({row_between(kZero, kUnit - 1, 3 * kUnit)}) == EINVAL);
  CHECK(feed({row_between(kZero, 0, kUnit)}) == EINVAL);
  CHECK(feed({row_between(kZero, kUnit, 3 * kUnit), row_between(kZero, 4 * kUnit, 5 * kUnit)}) ==
        EINVAL);
  CHECK(feed({row_between(kZero, kUnit, 3 * kUnit), row_between(kData, 2 * kUnit, 5 * kUnit)}) ==
        EINVAL);
  CHECK(feed({row_between(kZero, kUnit, 10 * kUnit + 1)}) == EINVAL);
  CHECK(feed({row_between(kData, kUnit, 10 * kUnit),
              row_between(kData, 10 * kUnit, 10 * kUnit + 1)}) == EINVAL);
}

TEST_CASE("Assembler: is not complete before every byte came") {
  Assembler assembler(kUnit, kMost, 10 * kUnit, false);
  CHECK(!assembler.next());
  assembler.feed({row_between(kData, 0, 100)});
  CHECK(!assembler.next());
  assembler.feed({row_between(kZero, 100, 8 * kUnit)});
  CHECK(steps_of(assembler).size() == 2);
  CHECK(!assembler.complete());
  assembler.feed({row_between(kZero, 8 * kUnit, 10 * kUnit)});
  CHECK(steps_of(assembler).size() == 1);
  CHECK(assembler.complete());
}

TEST_CASE("Assembler: random rows in random batches, against a map of every byte") {
  std::mt19937 random(6);
  for (int round = 0; round < 1000; round++) {
    CAPTURE(round);
    uint64_t unit = 512u << random() % 3;
    uint64_t most = unit * (1 + random() % 8);
    bool has_backing = random() % 2 == 0;
    uint64_t size = random() % (30 * unit);
    std::vector<Row> rows;
    std::vector<GuestByte> model;
    while (model.size() < size) {
      Row next;
      next.kind = static_cast<RowKind>(random() % 5);
      next.start = model.size();
      uint64_t length = std::vector<uint64_t>{1 + random() % 700, 512 * (1 + random() % 9),
                                              unit * (1 + random() % 10)}[random() % 3];
      next.length = std::min(length, size - next.start);
      if (next.reads()) {
        next.file = random() % 3;
        next.offset = random() % 1000000;
      }
      if (next.compressed()) {
        next.size = 512;
        next.within = random() % 1000;
        next.cluster_size = next.within + next.length + random() % 1000;
      }
      rows.push_back(next);
      for (uint64_t at = next.start; at < next.end(); at++) model.push_back(byte_of(next, at));
    }

    // What stands in a unit: nothing but zero, nothing but skipped, anything read, anything
    // skipped.
    auto kind_of = [&](uint64_t from, uint64_t to) {
      bool zero = true, skip = true, read = false, any_skip = false;
      for (uint64_t at = from; at < to; at++) {
        RowKind kind = model[at].kind;
        zero = zero && kind == kZero;
        skip = skip && kind == kSkip;
        any_skip = any_skip || kind == kSkip;
        read = read || kind >= kData;
      }
      return std::array{zero, skip, read, any_skip};
    };
    bool impossible = false;
    for (uint64_t at = 0; at < size; at += unit) {
      auto [zero, skip, read, any_skip] = kind_of(at, std::min(at + unit, size));
      impossible = impossible || (has_backing && any_skip && !skip);
    }

    Assembler assembler(unit, most, size, has_backing);
    std::vector<Step> steps;
    bool thrown = false;
    for (size_t fed = 0; fed < rows.size() && !thrown;) {
      size_t batch = std::min<size_t>(random() % 5, rows.size() - fed);
      auto from = rows.begin() + static_cast<ptrdiff_t>(fed);
      assembler.feed({from, from + static_cast<ptrdiff_t>(batch)});
      fed += batch;
      try {
        for (size_t n = random() % 4; n > 0 || fed == rows.size(); n--) {
          std::optional<Step> step = assembler.next();
          if (!step) break;
          steps.push_back(std::move(*step));
        }
      } catch (const Error& error) {
        thrown = true;
        CHECK(error.errnum() == EINVAL);
      }
    }
    CHECK(thrown == impossible);
    if (thrown) continue;

    uint64_t position = 0, wrong = 0;
    auto expect = [&](bool ok) { wrong += ok ? 0 : 1; };
    for (const Step& step : steps) {
      expect(step.start == position && step.length > 0);
      position += step.length;
      expect(position % unit == 0 || position == size);
      if (step.kind == Step::Kind::kData) expect(step.length <= most);
      for (uint64_t at = step.start; at < position; at += unit) {
        auto [zero, skip, read, any_skip] = kind_of(at, std::min(at + unit, position));
        if (step.kind == Step::Kind::kZero) expect(has_backing ? zero : !read);
        if (step.kind == Step::Kind::kSkip) expect(skip);
        // Small runs of zero bytes may go along with data, skipped units over a backing file not.
        if (step.kind == Step::Kind::kData) expect(!has_backing || !any_skip);
        if (read) expect(step.kind == Step::Kind::kData);
      }
      if (step.kind != Step::Kind::kData) continue;
      // A step that reads nothing would be waited for without end.
      expect(!step.rows.empty());
      std::vector<GuestByte> got(step.length, {kZero, 0, 0, 0});
      uint64_t end = step.start;
      for (const Row& slice : step.rows) {
        expect(slice.start >= end && slice.length > 0 && slice.end() <= position && slice.reads());
        if (wrong > 0) break;
        end = slice.end();
        for (uint64_t at = slice.start; at < end; at++) got[at - step.start] = byte_of(slice, at);
      }
      for (uint64_t at = step.start; at < position; at++) {
        GuestByte want = model[at];
        if (want.kind < kData) want = {kZero, 0, 0, 0};
        expect(got[at - step.start] == want);
      }
    }
    CHECK(wrong == 0);
    CHECK(position == size);
    CHECK(assembler.complete());
    CHECK(!assembler.next());
  }
}
