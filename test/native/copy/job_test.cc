#include "copy/job.h"

#include <blake2.h>
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "codec/codec.h"
#include "copy/copying.h"
#include "image/qemu_img.h"
#include "support/engine_kinds.h"
#include "support/recording_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr CompressionType kZlib = CompressionType::kZlib, kZstd = CompressionType::kZstd;

void check_counters(const CopyCounters& got, const CopyCounters& wanted) {
  CHECK(got.data == wanted.data);
  CHECK(got.zero == wanted.zero);
  CHECK(got.unchanged == wanted.unchanged);
  CHECK(got.position == wanted.position);
  CHECK(got.read >= got.data);
}

// The checksum of a disk that is only read: the same sources, nothing written, another order.
std::string read_back(const Plan& plan, CopySpec spec) {
  const Qcow2Target& image = image_of(spec);
  spec.target = HashTarget{1ull << image.cluster_bits, !image.backing_file.empty()};
  spec.requests = 16;
  spec.memory = 64 << 20;
  Copy copy(spec);
  CHECK(copy.run(plan.rows(), 50).message == "");
  return copy.job().checksums().content;
}

// The checksum of a disk of less than a block.
std::string hash_of_one_block(const Bytes& bytes) {
  uint8_t digest[32], digests[32];
  blake2b(digest, bytes.data(), nullptr, sizeof digest, bytes.size(), 0);
  blake2b(digests, digest, nullptr, sizeof digests, sizeof digest, 0);
  std::string text;
  for (uint8_t byte : digests) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Row row(RowKind kind, uint64_t start, uint64_t length) {
  return {.kind = kind, .start = start, .length = length, .offset = start};
}

}  // namespace

TEST_CASE("CopyJob: random plans arrive byte by byte, whatever the engine, cache and cluster") {
  for (uint32_t seed = 0; seed < 48; seed++) {
    CAPTURE(seed);
    const std::vector<EngineKind> kinds = engine_kinds();
    EngineKind kind = kinds[seed % kinds.size()];
    unsigned bits = std::array{9u, 12u, 16u, 18u}[seed / 4 % 4];
    unsigned compress = seed % 3;
    Plan plan({.size = (900000 + seed * 7919) / 512 * 512,
               .unit = 1ull << bits,
               .backing = seed / 16 % 2 == 0,
               .runs = seed % 5 == 0 ? 500u : 40u,
               .seed = seed});
    const TempFile target;
    CopySpec spec = plan.spec(target);
    image_of(spec).cluster_bits = bits;
    spec.engine = kind;
    spec.direct = seed / 2 % 2 == 0 ? Direct::kAuto : Direct::kOff;
    if (compress > 0) image_of(spec).compression = {compress == 2 ? kZstd : kZlib, 1};
    spec.requests = 1 + seed % 16;
    if (seed % 7 == 0) spec.memory = 0;
    Copy copy(spec);
    CHECK(copy.run(plan.rows(), 1 + seed % 13).message == "");
    check_target(target, plan, spec);
    check_counters(copy.job().counters(), plan.counters(1ull << bits));
    CHECK(copy.job().engine_name() ==
          std::string(kind == EngineKind::kUring ? "io_uring" : "threads"));
    if (spec.direct == Direct::kOff) CHECK(!copy.job().direct());
    CHECK(copy.job().checksums().content.empty() == !spec.hash);
    if (spec.hash) CHECK(copy.job().checksums().content == read_back(plan, spec));
    bool whole = spec.hash && image_of(spec).backing_file.empty();
    if (whole) CHECK(copy.job().checksums().content == hash_of_one_block(plan.expected()));
  }
}

TEST_CASE("CopyJob: random plans onto a raw file of any length") {
  for (uint32_t seed = 0; seed < 12; seed++) {
    CAPTURE(seed);
    Plan plan({.size = 900000 + seed * 12345, .unit = 4096, .runs = 50, .seed = seed});
    const TempFile target;
    CopySpec spec = plan.spec(target);
    spec.target = RawTarget{FileStore{target.fd()}};
    spec.direct = seed % 2 == 0 ? Direct::kAuto : Direct::kOff;
    Copy copy(spec);
    CHECK(copy.run(plan.rows(), 7).message == "");
    check_target(target, plan, spec);
    check_counters(copy.job().counters(), plan.counters(4096));
  }
}

TEST_CASE("CopyJob: random plans into a file that exists, of which the rest stays as it is") {
  for (uint32_t seed = 0; seed < 24; seed++) {
    CAPTURE(seed);
    uint32_t unit = seed % 2 == 0 ? 512 : 4096;
    Plan plan({.size = 300 * unit + 900 * 4096 * (seed % 3),
               .unit = unit,
               .backing = true,
               .runs = 50,
               .seed = seed});
    const TempFile target;
    target.write(0, plan.backing());
    CopySpec spec = plan.spec(target);
    spec.target = PatchTarget{{target.fd()}, unit};
    spec.direct = seed % 4 < 2 ? Direct::kAuto : Direct::kOff;
    Copy copy(spec);
    CHECK(copy.run(plan.rows(), 7).message == "");
    check_target(target, plan, spec);
  }
}

TEST_CASE("CopyJob: a long run of zeroes becomes a hole of a file that exists") {
  constexpr uint64_t kSize = 16 << 20;
  const TempFile target;
  target.write(0, random_bytes(kSize, 3));
  CopySpec spec;
  spec.target = PatchTarget{{target.fd()}, 4096};
  spec.size = kSize;
  spec.memory = 8 << 20;
  CHECK(Copy(spec)
            .run({row(RowKind::kSkip, 0, 4096), row(RowKind::kZero, 4096, kSize - 8192),
                  row(RowKind::kSkip, kSize - 4096, 4096)})
            .complete);
  Bytes content = target.read(0, kSize), expected = random_bytes(kSize, 3);
  std::fill(expected.begin() + 4096, expected.end() - 4096, uint8_t{0});
  CHECK((content == expected));
  struct stat info;
  REQUIRE(fstat(target.fd(), &info) == 0);
  CHECK(info.st_blocks * 512 <= 64 << 10);
}

TEST_CASE("CopyJob: holes of a raw target stay holes, and zeroes among the data become some") {
  constexpr uint64_t kSize = 64 << 20;
  const TempFile source, target;
  source.truncate(kSize);
  source.write(1 << 20, Bytes(4096, 1));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, kSize}};
  spec.target = RawTarget{FileStore{target.fd()}};
  spec.size = kSize;
  Copy copy(spec);
  CHECK(copy.run({row(RowKind::kData, 0, 4 << 20), row(RowKind::kSkip, 4 << 20, 8 << 20),
                  row(RowKind::kZero, 12 << 20, kSize - (12 << 20))})
            .complete);
  struct stat info;
  REQUIRE(fstat(target.fd(), &info) == 0);
  CHECK(info.st_size == kSize);
  CHECK(info.st_blocks * 512 <= 64 << 10);
  CHECK(copy.job().counters().data == 4096);
}

TEST_CASE("CopyJob: qemu-img finds nothing wrong and no byte different") {
  for (int compress = 0; compress < 3; compress++) {
    CAPTURE(compress);
    Plan plan({.size = 1000 * 1024, .seed = 7});
    const TempFile target, raw;
    raw.write(0, plan.expected());
    CopySpec spec = plan.spec(target);
    if (compress > 0) image_of(spec).compression = {compress == 2 ? kZstd : kZlib, 2};
    CHECK(Copy(spec).run(plan.rows()).complete);
    Ran check = qemu_img("check -f qcow2 " + target.path());
    CHECK_MESSAGE(check.status == 0, check.output);
    Ran compare = qemu_img("compare -f qcow2 -F raw " + target.path() + " " + raw.path());
    CHECK_MESSAGE(compare.status == 0, compare.output);
    CHECK(compare.output.find("identical") != std::string::npos);
  }
}

TEST_CASE("CopyJob: a disk of no bytes") {
  for (bool qcow2 : {true, false}) {
    Plan plan({.size = 0});
    const TempFile target;
    CopySpec spec = plan.spec(target);
    if (!qcow2) spec.target = RawTarget{FileStore{target.fd()}};
    CHECK(Copy(spec).run({}).complete);
    check_target(target, plan, spec);
  }
}

TEST_CASE("CopyJob: 64 Ki rows of 512 bytes each") {
  constexpr uint64_t kRows = 65536, kSize = kRows * 512;
  const TempFile source, target;
  Bytes content = random_bytes(1 << 20, 8);
  source.write(0, content);
  std::vector<Row> rows(kRows);
  for (uint64_t i = 0; i < kRows; i++) {
    rows[i] = row(i % 3 == 2 ? RowKind::kZero : RowKind::kData, i * 512, 512);
    rows[i].offset = i * 37 % 2048 * 512;
  }
  for (EngineKind kind : engine_kinds()) {
    CopySpec spec;
    spec.sources = {{FileStore{source.fd()}, content.size()}};
    image_of(spec).store.fd = target.fd();
    spec.size = kSize;
    spec.engine = kind;
    spec.memory = 64 << 20;
    Copy copy(spec);
    CHECK(copy.run(rows, 4096).message == "");
    CHECK(copy.job().counters().position == kSize);
    CHECK(copy.job().counters().data == kSize);
  }
  uint64_t wrong = 0;
  Bytes file = target.read(65536, kSize);  // the data are the first behind the header
  for (uint64_t i = 0; i < kRows; i++) {
    auto got = file.begin() + static_cast<ptrdiff_t>(i * 512);
    auto want = content.begin() + static_cast<ptrdiff_t>(rows[i].offset);
    bool same =
        i % 3 == 2 ? std::count(got, got + 512, 0) == 512 : std::equal(got, got + 512, want);
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("CopyJob: reads no faster than its limit") {
  using Clock = std::chrono::steady_clock;
  constexpr uint64_t kSize = 6 << 20;
  constexpr double kRate = 16 << 20, kBurst = 0.1, kStep = 1 << 20;
  const TempFile source, target;
  source.write(0, random_bytes(kSize, 9));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, kSize}};
  image_of(spec).store.fd = target.fd();
  spec.size = kSize;
  spec.memory = 64 << 20;
  spec.rate_limit = static_cast<uint64_t>(kRate);
  Copy copy(spec);
  Clock::time_point begin = Clock::now();
  copy.start();
  copy.push({row(RowKind::kData, 0, kSize)}, 1);
  copy.job().close();
  // A slow machine only makes the bound wider: the clock is looked at after the counter.
  for (bool ended = false; !ended;) {
    ended = copy.job().ended();
    auto read = static_cast<double>(copy.job().counters().read);
    std::chrono::duration<double> elapsed = Clock::now() - begin;
    if (read > kRate * (elapsed.count() + kBurst) + kStep) FAIL("read ", read, " bytes too soon");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(copy.wait().complete);
  CHECK(copy.job().counters().read == kSize);
}

TEST_CASE("CopyJob: two copies that share a limit read no faster than it together") {
  using Clock = std::chrono::steady_clock;
  constexpr uint64_t kSize = 4 << 20;
  constexpr double kRate = 16 << 20, kBurst = 0.1, kStep = 1 << 20;
  const TempFile source, target, other;
  source.write(0, random_bytes(kSize, 9));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, kSize}};
  image_of(spec).store.fd = target.fd();
  spec.size = kSize;
  spec.memory = 64 << 20;
  spec.rate_limit = static_cast<uint64_t>(kRate);
  Copy first(spec);
  image_of(spec).store.fd = other.fd();
  spec.shared_rate = first.job().rate();
  Copy second(spec);
  Clock::time_point begin = Clock::now();
  for (Copy* copy : {&first, &second}) {
    copy->start();
    copy->push({row(RowKind::kData, 0, kSize)}, 1);
    copy->job().close();
  }
  CHECK(first.wait().complete);
  CHECK(second.wait().complete);
  std::chrono::duration<double> elapsed = Clock::now() - begin;
  CHECK(elapsed.count() > (2 * kSize - 2 * kStep) / kRate - kBurst);
}

TEST_CASE("CopyJob: what an unlimited source is read for does not count against the limit") {
  constexpr uint64_t kSize = 4 << 20;
  const TempFile source, target;
  source.write(0, random_bytes(kSize, 9));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, kSize, true}};
  image_of(spec).store.fd = target.fd();
  spec.size = kSize;
  spec.memory = 64 << 20;
  // It would take weeks.
  spec.rate_limit = 1;
  CHECK(Copy(spec).run({row(RowKind::kData, 0, kSize)}).complete);
}

TEST_CASE("CopyJob: a plan that does not fit the disk") {
  auto outcome = [](std::vector<Row> rows) {
    const TempFile source, target;
    source.write(0, Bytes(65536, 1));
    CopySpec spec;
    spec.sources = {{FileStore{source.fd()}, 65536}};
    image_of(spec).store.fd = target.fd();
    spec.size = 65536;
    Outcome result = Copy(spec).run(rows, 1);
    CHECK(!looks_like_image(target));
    return result;
  };
  CHECK(outcome({row(RowKind::kData, 0, 4096)}).errnum == EINVAL);
  CHECK(outcome({}).errnum == EINVAL);
  CHECK(outcome({row(RowKind::kData, 0, 65537)}).errnum == EINVAL);
  CHECK(outcome({row(RowKind::kData, 0, 4096), row(RowKind::kZero, 0, 4096)}).errnum == EINVAL);
  CHECK(outcome({row(RowKind::kData, 4096, 4096)}).errnum == EINVAL);
}

TEST_CASE("CopyJob: what cannot be copied to is refused before or by the job") {
  const TempFile source, target;
  CopySpec spec;
  image_of(spec).store.fd = target.fd();
  spec.size = 1ull << 62;
  CHECK(Copy(spec).run({}).errnum == EFBIG);
  spec.size = 512;
  image_of(spec).backing_file = std::string(2000, 'x');
  image_of(spec).backing_format = "raw";
  CHECK(Copy(spec).run({}).errnum == ENAMETOOLONG);
  image_of(spec).store.fd = -1;
  try {
    CopyJob job(spec);
    FAIL("a target that is none");
  } catch (const CopyError& error) {
    CHECK(error.failure() == Failure::kWrite);
    CHECK(error.errnum() == EBADF);
  }
  image_of(spec).store.fd = target.fd();
  spec.sources = {{FileStore{source.fd()}, 0}, {FileStore{-1}, 0}};
  try {
    CopyJob job(spec);
    FAIL("a source that is none");
  } catch (const CopyError& error) {
    CHECK(error.failure() == Failure::kRead);
    CHECK(error.file() == 1);
  }
}

TEST_CASE("CopyJob: a job that was never started ends") {
  Plan plan({});
  const TempFile target;
  CopyJob job(plan.spec(target));
  CHECK(!job.ended());
  job.push(plan.rows());
  job.close();
}

TEST_CASE("CopyJob: rows that come after the end change nothing") {
  Plan plan({});
  const TempFile target;
  CopySpec spec = plan.spec(target);
  Copy copy(spec);
  CHECK(copy.run(plan.rows()).complete);
  for (int i = 0; i < 10; i++) copy.job().push(plan.rows());
  CHECK(copy.job().has_room());
  copy.job().close();
  copy.job().cancel();
  CHECK(copy.job().ended());
  CHECK(!copy.job().failure());
  check_target(target, plan, spec);
}

TEST_CASE("CopyJob: the plan may come slower than it is copied") {
  Plan plan({.runs = 200});
  const TempFile target;
  CopySpec spec = plan.spec(target);
  Copy copy(spec);
  copy.start();
  for (const Row& next : plan.rows()) {
    copy.push({next}, 1);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  CHECK(copy.finish().complete);
  check_target(target, plan, spec);
}

TEST_CASE("CopyJob: what is copied reaches the file while the rest of the plan is waited for") {
  const TempFile source, target;
  Bytes content = random_bytes(256 << 10, 10);
  source.write(0, content);
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, content.size()}};
  image_of(spec).store.fd = target.fd();
  spec.size = 512 << 10;
  spec.memory = 64 << 20;
  Copy copy(spec);
  copy.start();
  // The zeroes tell that the data before them are complete.
  copy.push({row(RowKind::kData, 0, 256 << 10), row(RowKind::kZero, 256 << 10, 128 << 10)}, 2);
  auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (target.read(65536, content.size()) != content) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  copy.push({row(RowKind::kZero, 384 << 10, 128 << 10)}, 1);
  CHECK(copy.finish().complete);
}

TEST_CASE("CopyJob: a compressed cluster covered by small pieces is read once, not once a piece") {
  constexpr uint64_t kSize = 65536;
  Bytes cluster(kSize);
  for (size_t i = 0; i < kSize; i++) cluster[i] = static_cast<uint8_t>(i / 97);
  Bytes stream(kSize);
  size_t size = make_compressor(Compression::kDeflate, 6)
                    ->compress(cluster.data(), kSize, stream.data(), kSize);
  REQUIRE(size > 0);
  stream.resize(4096 * ((size + 4095) / 4096));
  const TempFile packed, plain, target;
  packed.write(0, stream);
  plain.write(0, Bytes(kSize, 0xee));

  CopySpec spec;
  spec.sources = {{FileStore{packed.fd()}, stream.size()}, {FileStore{plain.fd()}, kSize}};
  spec.target = RawTarget{FileStore{target.fd()}};
  spec.size = kSize;
  std::vector<Row> rows;
  Bytes expected = cluster;
  for (uint64_t at = 0; at < kSize; at += 1024) {
    rows.push_back({.kind = RowKind::kDeflate,
                    .start = at,
                    .length = 512,
                    .size = stream.size(),
                    .cluster_size = kSize,
                    .within = at});
    rows.push_back(
        {.kind = RowKind::kData, .start = at + 512, .length = 512, .file = 1, .offset = at + 512});
    std::fill_n(expected.begin() + static_cast<ptrdiff_t>(at) + 512, 512, 0xee);
  }

  std::vector<RecordingEngine::Record> records;
  Wrapped recorded([&](std::unique_ptr<Engine> engine) {
    return std::make_unique<RecordingEngine>(std::move(engine), records);
  });
  CHECK(Copy(spec).run(rows).message == "");
  CHECK(target.read(0, kSize) == expected);
  auto reads_packed = [&](const auto& record) {
    return record.op == Op::kRead && record.length == stream.size();
  };
  CHECK(std::count_if(records.begin(), records.end(), reads_packed) == 1);
}

TEST_CASE("CopyJob: two guest clusters that share one compressed stream both get its content") {
  constexpr uint64_t kSize = 65536;
  Bytes cluster(kSize, 0x5a);
  Bytes stream(4096);
  REQUIRE(make_compressor(Compression::kDeflate, 6)
              ->compress(cluster.data(), kSize, stream.data(), stream.size()) > 0);
  const TempFile packed, target;
  packed.write(0, stream);
  CopySpec spec;
  spec.sources = {{FileStore{packed.fd()}, stream.size()}};
  spec.target = RawTarget{FileStore{target.fd()}};
  spec.size = 2 * kSize;
  Row row{.kind = RowKind::kDeflate, .length = kSize, .size = stream.size(), .cluster_size = kSize};
  Row again = row;
  again.start = kSize;
  CHECK(Copy(spec).run({row, again}).message == "");
  CHECK(target.read(0, 2 * kSize) == Bytes(2 * kSize, 0x5a));
}
