#include "image/raw_writer.h"

#include <doctest/doctest.h>

#include "base/error.h"
#include "image/memory_output.h"

using namespace qb;
using namespace qb::test;

namespace {

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

// A disk of five units and a bit: hole, data, zero, data.
void write_disk(RawWriter& writer, BufferPool& pool, uint64_t unit) {
  BufferRef memory = pool.get_zeroed(2 * unit);
  writer.skip(unit);
  writer.write_data(memory->data(), 2 * unit, memory);
  writer.write_zeroes(2 * unit);
  CHECK(writer.settled() == 5 * unit);
  writer.write_data(memory->data(), unit, memory);
  writer.finish();
  writer.write_header();
}

}  // namespace

TEST_CASE("RawWriter: the disk as it is, and what is zero is made so") {
  for (uint64_t unit : {kPage, size_t{65536}}) {
    BufferPool pool;
    MemoryOutput output;
    uint64_t size = 5 * unit + 1000;
    RawWriter writer(size, unit, 6 * unit, pool, output);
    CHECK(!writer.has_backing());
    CHECK(writer.unit() == unit);
    CHECK(writer.file_length() == size);
    write_disk(writer, pool, unit);
    CHECK(output.put_ranges() == Ranges{{unit, 2 * unit}, {5 * unit, unit}});
    CHECK(output.zeroes() == Ranges{{0, unit}, {3 * unit, 2 * unit}});
  }
}

TEST_CASE("RawWriter: nothing is written past where writing stops") {
  BufferPool pool;
  MemoryOutput output;
  uint64_t end = 5 * kPage + 1024;
  RawWriter writer(5 * kPage + 1000, kPage, end, pool, output);
  write_disk(writer, pool, kPage);
  CHECK(output.put_ranges().back() == std::pair<uint64_t, uint64_t>(5 * kPage, 1024));

  MemoryOutput zero;
  RawWriter zeroes(5 * kPage + 1000, kPage, end, pool, zero);
  zeroes.write_zeroes(5 * kPage + 1000);
  CHECK(zero.zeroes() == Ranges{{0, end}});
}

TEST_CASE("RawWriter: the end of the disk's last unit is made zero with it") {
  BufferPool pool;
  MemoryOutput output;
  RawWriter writer(kPage + 512, kPage, 2 * kPage, pool, output);
  writer.write_zeroes(kPage + 512);
  CHECK(output.zeroes() == Ranges{{0, 2 * kPage}});
}

TEST_CASE("RawWriter: where zeroes cannot be made they are put") {
  BufferPool pool;
  MemoryOutput output;
  output.makes_zeroes = false;
  constexpr uint64_t kSize = (3 << 20) + 512;
  RawWriter writer(kSize, kPage, kSize, pool, output);
  writer.skip(kSize);
  CHECK(output.put_ranges() ==
        Ranges{{0, 1 << 20}, {1 << 20, 1 << 20}, {2 << 20, 1 << 20}, {3 << 20, 512}});
  Bytes read(kSize, 1);
  output.read(0, read.data(), kSize);
  CHECK((read == Bytes(kSize)));
}

TEST_CASE("RawWriter: takes no compressed clusters") {
  BufferPool pool;
  MemoryOutput output;
  RawWriter writer(kPage, kPage, kPage, pool, output);
  CHECK(writer.compressed_limit() == 0);
  uint8_t byte = 1;
  CHECK_THROWS_AS(writer.write_compressed(&byte, 1), Error);
}
