#include "image/qcow2_writer.h"

#include <doctest/doctest.h>

#include <random>

#include "base/error.h"
#include "image/writer_model.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kMiB = 1 << 20, kGiB = 1 << 30, kTiB = 1ull << 40;

ImageOptions over_backing(unsigned bits, uint64_t size) {
  return {.cluster_bits = bits, .size = size, .backing_file = "base.raw", .backing_format = "raw"};
}

int refusal(const ImageOptions& options) {
  BufferPool pool;
  MemoryOutput output;
  int errnum = 0;
  try {
    Qcow2Writer writer(options, pool, output);
  } catch (const Error& error) {
    errnum = error.errnum();
  }
  CHECK(output.puts().empty());
  return errnum;
}

// Data of a few clusters and streams of all sizes; long runs that often end where an L2 table does.
void drive(WriterModel& model, unsigned bits, std::mt19937& random) {
  uint64_t cluster_size = 1ull << bits, per_table = cluster_size / 8;
  uint64_t budget = std::max<uint64_t>(6 * cluster_size, 512 << 10);
  auto upto = [&](uint64_t most) { return 1 + random() % most; };
  auto run = [&] {
    uint64_t to_border = per_table - model.next() % per_table;
    uint64_t length =
        std::vector<uint64_t>{to_border, to_border + per_table, to_border + 1,
                              upto(8),   upto(per_table),       upto(3 * per_table)}[random() % 6];
    return std::min(length, model.left());
  };
  while (model.left() > 0) {
    unsigned choice = random() % 4;
    if (choice == 0) model.zero(run());
    if (choice == 1) model.skip(run());
    if (choice == 2) {
      uint64_t clusters = std::min(upto(bits < 14 ? 100 : 3), model.left());
      if (clusters * cluster_size > budget) continue;
      budget -= clusters * cluster_size;
      model.data(clusters);
    }
    for (uint64_t n = choice == 3 ? upto(20) : 0; n > 0 && model.left() > 0; n--) {
      size_t most = cluster_size - 1;
      size_t size = std::vector<size_t>{1, upto(300), upto(most), most, most / 2 + 1}[random() % 5];
      size = std::min(size, most);
      if (size > budget) break;
      budget -= size;
      model.compressed(size);
    }
  }
}

}  // namespace

TEST_CASE("Qcow2Writer: random disks decode to what was given, and every cluster is counted") {
  std::mt19937 random(2);
  for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; bits++) {
    uint64_t cluster_size = 1ull << bits, per_table = cluster_size / 8;
    for (unsigned round = 0; round < (bits < 15 ? 40u : 8u); round++) {
      uint64_t most = bits < 12 ? 12 * per_table : bits < 18 ? 2 * per_table : 64;
      uint64_t sectors = random() % (most * (cluster_size / 512));
      ImageOptions options = {.cluster_bits = bits, .size = sectors * 512};
      if (round % 2 == 1) options = over_backing(bits, sectors * 512);
      if (round % 4 >= 2) options.compression = CompressionType::kZstd;
      CAPTURE(bits);
      CAPTURE(round);
      CAPTURE(options.size);
      WriterModel model(options);
      drive(model, bits, random);
      model.finish();
    }
  }
}

TEST_CASE("Qcow2Writer: a disk of no bytes") {
  for (unsigned bits : {9u, 16u, 21u}) {
    CAPTURE(bits);
    WriterModel plain({.cluster_bits = bits});
    plain.finish();
    WriterModel overlay(over_backing(bits, 0));
    overlay.finish();
  }
}

TEST_CASE("Qcow2Writer: data lie in one piece, tables and counts between those of two tables") {
  WriterModel model({.cluster_bits = 9, .size = 2 * kMiB});
  while (model.left() > 0) model.data(std::min<uint64_t>(5, model.left()));
  Decoder decoder = model.finish();
  for (uint64_t i = 1; i < decoder.clusters(); i++) {
    if (i % 64 != 0) CHECK(decoder.cluster(i).host == decoder.cluster(i - 1).host + 512);
  }
}

TEST_CASE("Qcow2Writer: a refcount table of several clusters") {
  // 512 * 256 bytes a block, 64 blocks a cluster of the table: 20 MiB need three.
  WriterModel model({.cluster_bits = 9, .size = 20 * kMiB});
  while (model.left() > 0) model.data(std::min<uint64_t>(1000, model.left()));
  Decoder decoder = model.finish();
  CHECK(decoder.header().reftable_clusters == 3);
}

TEST_CASE("Qcow2Writer: without a backing file zeroes take nothing") {
  WriterModel model({.size = 4 * kTiB});
  model.writer().write_zeroes(2 * kTiB);
  model.writer().skip(2 * kTiB);
  model.writer().finish();
  // Header, block of refcounts, refcount table, and 64 KiB of L1.
  CHECK(model.output().length() == 4 * 65536);
  CHECK(model.writer().file_length() == 4 * 65536);
}

TEST_CASE("Qcow2Writer: the file ends with the last cluster of L1, zeroes behind the last entry") {
  for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; bits++) {
    CAPTURE(bits);
    uint64_t cluster_size = 1ull << bits;
    // Two entries, of which a sector holds 64.
    uint64_t size = cluster_size / 8 * cluster_size + 512;
    WriterModel model(over_backing(bits, size));
    model.writer().skip(size - 512);
    model.writer().write_zeroes(512);
    Decoder decoder = model.decode();
    uint64_t length = model.writer().file_length();
    uint64_t l1 = length - cluster_size;
    CHECK(decoder.header().l1_offset == l1);
    CHECK(model.output().puts()[model.output().puts().size() - 2].offset == l1);
    Bytes rest(cluster_size - 16, 1);
    model.output().read(l1 + 16, rest.data(), rest.size());
    CHECK(rest == Bytes(rest.size()));
  }
}

TEST_CASE("Qcow2Writer: tables of nothing but zero flags are one table") {
  WriterModel model(over_backing(16, kTiB));
  model.writer().write_zeroes(kTiB);
  Decoder decoder = model.decode();
  for (uint64_t i = 1; i < 2048; i++) CHECK(decoder.table(i) == decoder.table(0));
  CHECK(decoder.cluster(0).kind == GuestCluster::kZero);
  CHECK(decoder.cluster(decoder.clusters() - 1).kind == GuestCluster::kZero);
}

TEST_CASE("Qcow2Writer: tables of zero flags are not shared where that is not wanted") {
  ImageOptions options = over_backing(9, 5 * 32768);
  options.shared_tables = false;
  WriterModel model(options);
  model.zero(64 + 64);
  for (int i = 0; i < 64; i++) model.zero(1);
  model.skip(64);
  model.zero(64);
  Decoder decoder = model.finish();
  for (uint64_t i : {0, 1, 2, 4}) {
    CHECK(decoder.table(i) != 0);
    for (uint64_t j = 0; j < i; j++) CHECK(decoder.table(i) != decoder.table(j));
  }
  CHECK(decoder.table(3) == 0);
}

TEST_CASE("Qcow2Writer: a table that became all zero flags piece by piece is shared, too") {
  WriterModel model(over_backing(9, 4 * 32768));
  for (int i = 0; i < 64; i++) model.zero(1);
  model.zero(40);
  model.zero(24 + 64);
  model.zero(64);
  Decoder decoder = model.finish();
  for (uint64_t i = 1; i < 4; i++) CHECK(decoder.table(i) == decoder.table(0));
}

TEST_CASE("Qcow2Writer: a table shared by nobody else keeps its COPIED flag") {
  // What COPIED must be follows from the refcounts, which finish() compares.
  WriterModel model(over_backing(9, 3 * 32768 + 512));
  model.skip(64);
  model.zero(64);
  model.skip(64);
  model.zero(1);
  Decoder decoder = model.finish();
  CHECK(decoder.table(0) == 0);
  CHECK(decoder.table(1) != 0);
  CHECK(decoder.table(2) == 0);
  CHECK(decoder.table(3) != 0);
  CHECK(decoder.table(3) != decoder.table(1));
}

TEST_CASE("Qcow2Writer: a table is shared as often as a refcount can count") {
  constexpr uint64_t kCovers = 64 * 512, kMost = 65535;
  for (uint64_t tables : {kMost, kMost + 1, kMost + 2, 2 * kMost + 7}) {
    CAPTURE(tables);
    WriterModel model(over_backing(9, tables * kCovers));
    model.writer().write_zeroes(tables * kCovers);
    Decoder decoder = model.decode();
    CHECK((decoder.table(0) == decoder.table(kMost - 1)));
    if (tables > kMost) CHECK(decoder.table(kMost - 1) != decoder.table(kMost));
    if (tables > 2 * kMost) CHECK(decoder.table(2 * kMost) != decoder.table(kMost));
  }
}

TEST_CASE("Qcow2Writer: the largest disks, wiped") {
  for (unsigned bits : {16u, 21u}) {
    CAPTURE(bits);
    WriterModel model(over_backing(bits, 64 * kTiB));
    model.writer().write_zeroes(64 * kTiB);
    Decoder decoder = model.decode();
    CHECK(decoder.cluster(decoder.clusters() - 1).kind == GuestCluster::kZero);
    CHECK(model.writer().file_length() <= std::max<uint64_t>(8 << bits, 3 << 20));
  }
}

TEST_CASE("Qcow2Writer: streams are packed byte after byte, across clusters") {
  WriterModel model({.cluster_bits = 12, .size = 512 * 4096});
  for (int i = 0; i < 512; i++) model.compressed(i % 2 == 0 ? 1000 : 1777);
  Decoder decoder = model.finish();
  uint64_t end = 4096;
  for (uint64_t i = 0; i < 512; i++) {
    CHECK(decoder.cluster(i).host == end);
    end += i % 2 == 0 ? 1000 : 1777;
  }
}

TEST_CASE("Qcow2Writer: data among streams") {
  WriterModel model({.cluster_bits = 12, .size = 600 * 4096});
  for (int i = 0; i < 100; i++) {
    model.compressed(1500);
    model.data(1);
    model.compressed(2000);
    model.compressed(4095);
    model.skip(2);
  }
  model.finish();
}

TEST_CASE("Qcow2Writer: a cluster of streams is written once enough of the disk has followed") {
  for (unsigned bits : {16u, 21u}) {
    CAPTURE(bits);
    uint64_t cluster_size = 1ull << bits;
    uint64_t held = std::max<uint64_t>(32 * kMiB >> bits, 64);
    // Whatever it is that follows: data, zeroes, skipped clusters, or a few more streams.
    for (int kind = bits == 16 ? 0 : 1; kind < 4; kind++) {
      CAPTURE(kind);
      uint64_t count = 2 * held;
      WriterModel model(over_backing(bits, count * cluster_size));
      model.compressed(100);
      uint64_t most = 0;
      while (model.left() > 0) {
        uint64_t next = std::min(model.left(), held / 8);
        if (kind == 0) model.data(1);
        if (kind == 1) model.zero(next);
        if (kind == 2) model.skip(next);
        if (kind == 3) model.next() % 7 == 0 ? model.compressed(1) : model.skip(1);
        most = std::max(most, model.next() * cluster_size - model.writer().settled());
      }
      CHECK(most >= cluster_size);
      CHECK(most <= (held + held / 8) * cluster_size);
      if (kind != 3) CHECK(model.writer().settled() == count * cluster_size);
      model.finish();
    }
  }
}

TEST_CASE("Qcow2Writer: one stream before a large disk costs no time at its end") {
  // As much as there is to count: with a window that only moves at the end this took minutes.
  constexpr uint64_t kSize = 16 * kTiB;
  WriterModel model({.size = kSize});
  BufferPool pool;
  BufferRef memory = pool.get(65536);
  model.writer().write_compressed(memory->data(), 100);
  size_t puts = model.output().puts().size();
  model.writer().skip(kSize - 65536);
  // The cluster of the stream and its L2 table.
  CHECK(model.output().puts().size() == puts + 2);
  CHECK(model.writer().settled() == kSize);
}

TEST_CASE("Qcow2Writer: sizes that no image can have") {
  CHECK(refusal({.cluster_bits = 8, .size = 512}) == EINVAL);
  CHECK(refusal({.cluster_bits = 22, .size = 512}) == EINVAL);
  CHECK(refusal({.cluster_bits = 16, .size = 1000}) == EINVAL);
  CHECK(refusal({.cluster_bits = 16, .size = 512}) == 0);
}

TEST_CASE("Qcow2Writer: the largest L1 table that QEMU opens") {
  // 4 Mi entries of one L2 table each.
  CHECK(refusal({.cluster_bits = 9, .size = 128 * kGiB}) == 0);
  CHECK(refusal({.cluster_bits = 9, .size = 128 * kGiB + 512}) == EFBIG);
  CHECK(refusal({.cluster_bits = 12, .size = 8 * kTiB}) == 0);
  CHECK(refusal({.cluster_bits = 12, .size = 8 * kTiB + 512}) == EFBIG);
  CHECK(refusal({.cluster_bits = 16, .size = 64 * kTiB}) == 0);
  CHECK(refusal({.cluster_bits = 16, .size = 1ull << 63}) == EFBIG);
  for (unsigned bits = 9; bits <= 21; bits++) {
    CHECK(refusal({.cluster_bits = bits, .size = UINT64_MAX - 511}) == EFBIG);
  }
}

TEST_CASE("Qcow2Writer: a backing file's name that does not fit is refused at once") {
  auto named = [](unsigned bits, size_t length) {
    return refusal({.cluster_bits = bits,
                    .size = 512,
                    .backing_file = std::string(length, 'b'),
                    .backing_format = "qcow2"});
  };
  CHECK(named(16, 1023) == 0);
  CHECK(named(16, 1024) == ENAMETOOLONG);
  CHECK(named(9, 376) == 0);
  CHECK(named(9, 377) == ENAMETOOLONG);
}

TEST_CASE("Qcow2Writer: what leaves the disk or does not fill it is refused") {
  BufferPool pool;
  MemoryOutput output;
  Qcow2Writer writer({.size = 100352}, pool, output);
  CHECK_THROWS_AS(writer.finish(), Error);
  writer.skip(65536);
  CHECK_THROWS_AS(writer.finish(), Error);
  BufferRef memory = pool.get(2 * 65536);
  CHECK_THROWS_AS(writer.write_data(memory->data(), 2 * 65536, memory), Error);
  CHECK_THROWS_AS(writer.write_zeroes(65537), Error);
  writer.write_compressed(memory->data(), 5);
  CHECK_THROWS_AS(writer.write_compressed(memory->data(), 5), Error);
  CHECK_THROWS_AS(writer.skip(1), Error);
  CHECK_NOTHROW(writer.finish());
}
