#include "io/file_extents.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "support/bytes.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;
using Runs = std::vector<FileRun>;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kAll = 1000;

}  // namespace

TEST_CASE("file_extents: data and holes of a sparse file") {
  const TempFile file;
  file.write(1 * kMiB, Bytes(kMiB, 1));
  file.write(3 * kMiB, Bytes(kMiB, 1));
  file.truncate(6 * kMiB);
  const Runs whole = {{0, kMiB, false},
                      {kMiB, kMiB, true},
                      {2 * kMiB, kMiB, false},
                      {3 * kMiB, kMiB, true},
                      {4 * kMiB, 2 * kMiB, false}};
  CHECK(file_extents(file.fd(), 0, 6 * kMiB, kAll) == whole);

  SUBCASE("a part of it, cut to the range") {
    CHECK(file_extents(file.fd(), kMiB + 512, 2 * kMiB + 512, kAll) ==
          Runs{{kMiB + 512, kMiB - 512, true}, {2 * kMiB, 512, false}});
    CHECK(file_extents(file.fd(), 4096, 8192, kAll) == Runs{{4096, 4096, false}});
    CHECK(file_extents(file.fd(), 3 * kMiB, 3 * kMiB + 1, kAll) == Runs{{3 * kMiB, 1, true}});
    CHECK(file_extents(file.fd(), 5 * kMiB, 6 * kMiB, kAll) == Runs{{5 * kMiB, kMiB, false}});
  }
  SUBCASE("so many at a time, going on behind the last") {
    for (size_t max = 1; max <= 6; ++max) {
      Runs runs;
      for (uint64_t at = 0; at < 6 * kMiB; at = runs.back().start + runs.back().length) {
        const Runs some = file_extents(file.fd(), at, 6 * kMiB, max);
        REQUIRE(!some.empty());
        REQUIRE(some.size() <= max);
        runs.insert(runs.end(), some.begin(), some.end());
      }
      CHECK(runs == whole);
    }
    CHECK(file_extents(file.fd(), 0, 6 * kMiB, 0).empty());
  }
  SUBCASE("an empty range") {
    CHECK(file_extents(file.fd(), kMiB, kMiB, kAll).empty());
  }
}

TEST_CASE("file_extents: what lies behind the end of the file is data") {
  const TempFile file;
  CHECK(file_extents(file.fd(), 0, kMiB, kAll) == Runs{{0, kMiB, true}});
  file.truncate(2 * kMiB);
  CHECK(file_extents(file.fd(), 0, 5 * kMiB, kAll) ==
        Runs{{0, 2 * kMiB, false}, {2 * kMiB, 3 * kMiB, true}});
  CHECK(file_extents(file.fd(), 3 * kMiB, 5 * kMiB, kAll) == Runs{{3 * kMiB, 2 * kMiB, true}});
  file.write(kMiB, Bytes(kMiB, 1));
  CHECK(file_extents(file.fd(), 0, 5 * kMiB, kAll) ==
        Runs{{0, kMiB, false}, {kMiB, 4 * kMiB, true}});
  CHECK(file_extents(file.fd(), 0, 5 * kMiB, 1) == Runs{{0, kMiB, false}});
}

TEST_CASE("file_extents: what knows no holes is all data") {
  int pipes[2];
  REQUIRE(pipe2(pipes, O_CLOEXEC) == 0);
  CHECK(file_extents(pipes[0], 0, kMiB, kAll) == Runs{{0, kMiB, true}});
  close(pipes[0]);
  close(pipes[1]);
}

TEST_CASE("file_extents: other errors are thrown") {
  CHECK_THROWS_AS(file_extents(-1, 0, kMiB, kAll), Error);
}
