#include "image/raw_writer.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "image/memory_output.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

TEST_CASE("RawWriter: the disk as it is, with holes where nothing was put") {
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  BufferPool pool;
  MemoryOutput output;
  constexpr uint64_t kSize = 5 * kPage + 1000;
  RawWriter writer(file, kSize, pool, output);
  CHECK(!writer.has_backing());
  CHECK(writer.unit() == kPage);
  CHECK(writer.file_length() == kSize);
  struct stat info;
  REQUIRE(fstat(temp.fd(), &info) == 0);
  // The last unit is put as a whole, and cut by whoever knows that everything is written.
  CHECK(info.st_size == 6 * kPage);

  BufferRef memory = pool.get_zeroed(2 * kPage);
  writer.skip(kPage);
  writer.data(memory->data(), 2 * kPage, memory);
  writer.zero(2 * kPage);
  writer.data(memory->data(), kPage, memory);
  writer.finish();
  writer.header();
  REQUIRE(output.puts().size() == 2);
  CHECK(output.puts()[0].offset == kPage);
  CHECK(output.puts()[0].size == 2 * kPage);
  CHECK(output.puts()[1].offset == 5 * kPage);
  CHECK(output.puts()[1].size == kPage);
}

TEST_CASE("RawWriter: takes no compressed clusters") {
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  BufferPool pool;
  MemoryOutput output;
  RawWriter writer(file, kPage, pool, output);
  CHECK(writer.compressed_limit() == 0);
  uint8_t byte = 1;
  CHECK_THROWS_AS(writer.compressed(&byte, 1), Error);
}

TEST_CASE("RawWriter: a file that cannot be made so long says so") {
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  BufferPool pool;
  MemoryOutput output;
  CHECK_THROWS_AS(RawWriter(file, 1ull << 63, pool, output), Error);
}
