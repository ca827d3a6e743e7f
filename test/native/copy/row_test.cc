#include "copy/row.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

using namespace qb;

namespace {

constexpr size_t kFiles = 3;
using Columns = std::array<double, kRowColumns>;

// kind, start, length, file, offset, size, cluster_size, within
constexpr Columns kDataRow = {2, 4096, 512, 1, 65536, 0, 0, 0};
constexpr Columns kStreamRow = {3, 4096, 1000, 2, 77, 1024, 65536, 500};

bool taken(const Columns& columns) {
  try {
    unpack_rows(columns.data(), 1, kFiles);
    return true;
  } catch (const Error& error) {
    CHECK(error.errnum() == EINVAL);
    return false;
  }
}

bool taken(Columns columns, size_t column, double value) {
  columns[column] = value;
  return taken(columns);
}

}  // namespace

TEST_CASE("unpack_rows: every column in its place") {
  std::array<Columns, 2> columns = {kDataRow, kStreamRow};
  columns[0][0] = 4;
  columns[0][5] = 8;
  columns[0][6] = 512;
  std::vector<Row> rows = unpack_rows(columns[0].data(), 2, kFiles);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].kind == RowKind::kZstd);
  CHECK(rows[0].start == 4096);
  CHECK(rows[1].kind == RowKind::kDeflate);
  CHECK(rows[1].start == 4096);
  CHECK(rows[1].length == 1000);
  CHECK(rows[1].file == 2);
  CHECK(rows[1].offset == 77);
  CHECK(rows[1].size == 1024);
  CHECK(rows[1].cluster_size == 65536);
  CHECK(rows[1].within == 500);
  CHECK(rows[1].end() == 5096);
  CHECK(unpack_rows(nullptr, 0, 0).empty());
}

TEST_CASE("unpack_rows: numbers that are no whole bytes") {
  constexpr double kMost = 9007199254740991;  // 2^53 - 1
  for (const Columns& row : {kDataRow, kStreamRow}) {
    REQUIRE(taken(row));
    for (size_t column = 0; column < kRowColumns; column++) {
      CAPTURE(column);
      CHECK(!taken(row, column, std::nan("")));
      CHECK(!taken(row, column, -1));
      CHECK(!taken(row, column, -0.5));
      CHECK(!taken(row, column, row[column] + 0.5));
      CHECK(!taken(row, column, kMost + 1));
      CHECK(!taken(row, column, 1e300));
      CHECK(!taken(row, column, std::numeric_limits<double>::infinity()));
    }
  }
  CHECK(taken(kDataRow, 1, kMost));
  CHECK(taken(kDataRow, 4, kMost));
}

TEST_CASE("unpack_rows: kinds and files that are none") {
  for (double kind : {5.0, 255.0, 256.0, 258.0, 4294967296.0, 4294967298.0}) {
    CAPTURE(kind);
    CHECK(!taken(kDataRow, 0, kind));
  }
  for (double file : {3.0, 4.0, 4294967295.0, 4294967296.0, 4294967297.0}) {
    CAPTURE(file);
    CHECK(!taken(kDataRow, 3, file));
    CHECK(!taken(kStreamRow, 3, file));
  }
  // Who reads nothing needs no file.
  Columns zero = {1, 0, 4096, 0, 0, 0, 0, 0};
  CHECK_NOTHROW(unpack_rows(zero.data(), 1, 0));
  CHECK_THROWS_AS(unpack_rows(kDataRow.data(), 1, 0), Error);
}

TEST_CASE("unpack_rows: a row of no bytes") {
  CHECK(!taken(kDataRow, 2, 0));
  CHECK(!taken(kStreamRow, 2, 0));
  CHECK(!taken({0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_CASE("unpack_rows: compressed clusters within the format's bounds") {
  CHECK(!taken(kStreamRow, 5, 0));
  CHECK(taken(kStreamRow, 5, 4 << 20));
  CHECK(!taken(kStreamRow, 5, (4 << 20) + 1));
  CHECK(taken(kStreamRow, 6, 2 << 20));
  CHECK(!taken(kStreamRow, 6, (2 << 20) + 1));
  CHECK(!taken(kStreamRow, 6, 0));
  // The run ends within the cluster.
  CHECK(taken(kStreamRow, 7, 65536 - 1000));
  CHECK(!taken(kStreamRow, 7, 65536 - 999));
  CHECK(!taken(kStreamRow, 7, 9007199254740991));
  CHECK(taken(kStreamRow, 6, 1500));
  CHECK(!taken(kStreamRow, 6, 1499));
}

TEST_CASE("Row::slice: of data moves in the file, of a stream within what it expands to") {
  Row data{.kind = RowKind::kData, .start = 1000, .length = 500, .offset = 7000};
  Row part = data.slice(100, 30);
  CHECK(part.start == 1100);
  CHECK(part.length == 30);
  CHECK(part.offset == 7100);

  Row stream{.kind = RowKind::kZstd,
             .start = 1000,
             .length = 500,
             .offset = 7000,
             .size = 512,
             .cluster_size = 4096,
             .within = 9};
  part = stream.slice(100, 30);
  CHECK(part.start == 1100);
  CHECK(part.offset == 7000);
  CHECK(part.size == 512);
  CHECK(part.within == 109);
}
