#include "image/patch_writer.h"

#include <doctest/doctest.h>

#include "base/error.h"
#include "image/memory_output.h"

using namespace qb;
using namespace qb::test;

namespace {

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

}  // namespace

TEST_CASE("PatchWriter: what is skipped is not touched, few zeroes are put, many are made") {
  BufferPool pool;
  MemoryOutput output;
  PatchWriter writer(64 << 20, 512, pool, output);
  BufferRef memory = pool.get_zeroed(4096);
  writer.skip(1024);
  writer.write_data(memory->data(), 4096, memory);
  writer.write_zeroes(512);
  writer.skip(512);
  writer.write_zeroes(2 << 20);
  CHECK(output.put_ranges() == Ranges{{1024, 4096}, {5120, 512}});
  CHECK(output.zeroes() == Ranges{{6144, 2 << 20}});
  CHECK(writer.settled() == 6144 + (2 << 20));
  CHECK(writer.file_length() == 64 << 20);
  CHECK(writer.has_backing());
}

TEST_CASE("PatchWriter: where zeroes cannot be made they are put") {
  BufferPool pool;
  MemoryOutput output;
  output.makes_zeroes = false;
  PatchWriter writer(8 << 20, 512, pool, output);
  writer.skip(512);
  writer.write_zeroes((2 << 20) + 512);
  CHECK(output.put_ranges() ==
        Ranges{{512, 1 << 20}, {512 + (1 << 20), 1 << 20}, {512 + (2 << 20), 512}});
}

TEST_CASE("PatchWriter: a stream is no content") {
  BufferPool pool;
  MemoryOutput output;
  PatchWriter writer(4096, 512, pool, output);
  uint8_t stream[4] = {};
  CHECK_THROWS_AS(writer.write_compressed(stream, 4), Error);
}
