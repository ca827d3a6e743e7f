// What a copy does when something else does not do its part.
#include <doctest/doctest.h>

#include "copy/small_copy.h"
#include "support/failed_write_back.h"
#include "support/no_threads.h"
#include "support/stop_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

// The smallest piece of a transfer that the target takes.
uint64_t smallest_piece(const Way& way, const TempFile& target) {
  return std::max(File(target.fd(), true, way.direct, 1ull << way.bits).alignment(), 512u);
}

}  // namespace

TEST_CASE("CopyJob: any request that fails ends it, with the right failure and no image") {
  for (const Way& way : ways()) {
    Plan plan = small_plan(way);
    bool complete = false;
    size_t reads = 0, writes = 0, last_syncs = 0;
    for (size_t n = 0; !complete; n++) {
      CAPTURE(n);
      const TempFile target;
      size_t count = 0;
      Op op = Op::kSync;
      Wrapped wrapped(faults(
          [n, &op](size_t i, const Request& request) -> std::optional<Fault> {
            if (i != n) return std::nullopt;
            op = request.op;
            return Fault{.errnum = op == Op::kRead ? EIO : ENOSPC};
          },
          count));
      Outcome outcome = Copy(spec_of(way, plan, target)).run(plan.rows());
      complete = count <= n;
      CHECK(outcome.complete == complete);
      if (complete) break;
      CHECK(outcome.failure == (op == Op::kRead ? Failure::kRead : Failure::kWrite));
      CHECK(outcome.errnum == (op == Op::kRead ? EIO : ENOSPC));
      // All is there when the last sync fails, but nobody knows for how long.
      CHECK((!looks_like_image(target) || (op == Op::kSync && ++last_syncs == 1)));
      (op == Op::kRead ? reads : writes)++;
    }
    CHECK(reads > 10);
    CHECK(writes >= 3);
  }
}

TEST_CASE("CopyJob: when all requests fail from one on, the first failure is told, nothing leaks") {
  for (const Way& way : ways()) {
    Plan plan({.size = 8 << 20, .unit = 1ull << way.bits, .runs = 300, .seed = 22});
    for (Op broken : {Op::kRead, Op::kWrite}) {
      for (size_t n : {0, 1, 3, 5, 8}) {
        const TempFile target;
        size_t count = 0, seen = 0;
        Wrapped wrapped(faults(
            [&](size_t, const Request& request) -> std::optional<Fault> {
              if (request.op != broken || seen++ < n) return std::nullopt;
              return Fault{.errnum = EIO};
            },
            count));
        CopySpec spec = spec_of(way, plan, target);
        spec.requests = 16;
        spec.memory = 64 << 20;
        Outcome outcome = Copy(spec).run(plan.rows());
        if (seen <= n) continue;
        CHECK(outcome.failure == (broken == Op::kRead ? Failure::kRead : Failure::kWrite));
        CHECK(outcome.errnum == EIO);
        CHECK(!looks_like_image(target));
      }
    }
  }
}

TEST_CASE("CopyJob: any request may be cut short by the kernel, and all of them") {
  for (const Way& way : ways()) {
    Plan plan({.unit = 1ull << way.bits, .backing = true, .runs = 24, .seed = 21});
    size_t cut = 0, count = 0;
    constexpr size_t kAll = SIZE_MAX;
    for (size_t n = kAll; n == kAll || n < count; n++) {
      CAPTURE(n);
      const TempFile target;
      uint64_t piece = smallest_piece(way, target);
      Wrapped wrapped(faults(
          [&](size_t i, const Request& request) -> std::optional<Fault> {
            uint64_t half = length_of(request) / 2 / piece * piece;
            if ((i != n && n != kAll) || half == 0) return std::nullopt;
            cut++;
            return Fault{.bytes = half};
          },
          count));
      CopySpec spec = spec_of(way, plan, target);
      CHECK(Copy(spec).run(plan.rows()).message == "");
      check_target(target, plan, spec);
      // So that it becomes 0.
      if (n == kAll) CHECK(cut > 50);
    }
    CHECK(cut > 60);
  }
}

TEST_CASE("CopyJob: a read that gives nothing is the end of a file that shrank, a write an error") {
  const Way way = ways().front();
  Plan plan = small_plan(way);
  bool complete = false;
  for (size_t n = 0; !complete; n++) {
    CAPTURE(n);
    const TempFile target;
    size_t count = 0;
    Op op = Op::kSync;
    Wrapped wrapped(faults(
        [n, &op](size_t i, const Request& request) -> std::optional<Fault> {
          if (i != n) return std::nullopt;
          op = request.op;
          return Fault{};
        },
        count));
    CopySpec spec = spec_of(way, plan, target);
    Outcome outcome = Copy(spec).run(plan.rows());
    complete = count <= n;
    if (complete || (outcome.complete && op != Op::kWrite)) {
      // Or that was asked at the end of its file, where there is nothing more. A sync gives
      // nothing.
      check_target(target, plan, spec);
      continue;
    }
    CHECK(outcome.failure == (op == Op::kRead ? Failure::kShort : Failure::kWrite));
    CHECK(outcome.errnum == EIO);
    CHECK(!looks_like_image(target));
  }
}

TEST_CASE(
    "CopyJob: wherever the writes stop, an image that is not complete does not look like one") {
  for (const Way& way : ways()) {
    Plan plan = small_plan(way);
    bool stopped = true;
    for (size_t n = 0; stopped; n++) {
      CAPTURE(n);
      const TempFile target;
      size_t writes = 0;
      Wrapped wrapped([&writes, n](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
        return std::make_unique<FaultEngine>(
            std::make_unique<StopEngine>(std::move(inner), n),
            [&writes](size_t, const Request& request) -> std::optional<Fault> {
              if (request.op == Op::kWrite) writes++;
              return std::nullopt;
            });
      });
      CopySpec spec = spec_of(way, plan, target);
      // It knows nothing of the power cut.
      CHECK(Copy(spec).run(plan.rows()).complete);
      stopped = writes > n;
      CHECK(looks_like_image(target) == !stopped);
      if (!stopped) check_target(target, plan, spec);
    }
  }
}

TEST_CASE("CopyJob: no engine, no copy") {
  Wrapped wrapped([](std::unique_ptr<Engine>) -> std::unique_ptr<Engine> {
    throw Error(EPERM, "io_uring_setup");
  });
  Plan plan({});
  const TempFile target;
  Outcome outcome = Copy(plan.spec(target)).run(plan.rows());
  CHECK(outcome.errnum == EPERM);
  CHECK(outcome.message.find("io_uring_setup") == 0);
}

TEST_CASE("CopyJob: no thread for it, no copy") {
  Plan plan({});
  const TempFile target;
  Copy copy(plan.spec(target));
  const NoThreads none;
  CHECK_THROWS_AS(copy.start(), Error);
}

TEST_CASE("CopyJob: no threads for the work, no copy") {
  Plan plan({});
  for (EngineKind kind : engine_kinds()) {
    const TempFile target;
    // Called on the copy's thread.
    Wrapped wrapped([](std::unique_ptr<Engine> inner) {
      static thread_local std::unique_ptr<NoThreads> none;
      none = std::make_unique<NoThreads>();
      return inner;
    });
    CopySpec spec = plan.spec(target);
    spec.engine = kind;
    Outcome outcome = Copy(spec).run(plan.rows());
    CHECK(outcome.errnum == EAGAIN);
    CHECK(!looks_like_image(target));
  }
}

TEST_CASE("CopyJob: what could not be written back in the background fails the copy") {
  // As much as it takes until the page cache is emptied behind the writes.
  constexpr uint64_t kSize = 160 << 20, kPiece = 1 << 20;
  const TempFile source;
  source.write(0, random_bytes(kPiece, 51));
  std::vector<Row> rows;
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    rows.push_back({.kind = RowKind::kData, .start = at, .length = kPiece});
  }
  for (unsigned nth : {1, 3}) {
    CAPTURE(nth);
    const TempFile target;
    CopySpec spec;
    spec.sources = {{FileStore{source.fd()}, kPiece}};
    image_of(spec).store.fd = target.fd();
    spec.direct = Direct::kOff;
    spec.memory = 64 << 20;
    spec.size = kSize;
    const FailedWriteBack failed(nth, EIO);
    Outcome outcome = Copy(spec).run(rows);
    CHECK(FailedWriteBack::came());
    // And the sync that succeeds afterwards does not make it good.
    CHECK(outcome.failure == Failure::kWrite);
    CHECK(outcome.errnum == EIO);
    CHECK(!looks_like_image(target));
  }
}

TEST_CASE("CopyJob: a source that shrank, or never was so long") {
  for (Direct direct : {Direct::kAuto, Direct::kOff}) {
    for (bool told : {false, true}) {
      const TempFile other, source, target;
      other.write(0, Bytes(4096, 1));
      source.write(0, Bytes(700000, 2));
      CopySpec spec;
      // The first is as long as it says; the second ends in the middle of the plan.
      spec.sources = {{FileStore{other.fd()}, 4096},
                      {FileStore{source.fd()}, told ? 700000u : 1u << 20}};
      image_of(spec).store.fd = target.fd();
      spec.direct = direct;
      spec.size = (1 << 20) + 4096;
      Row first{.kind = RowKind::kData, .length = 4096};
      Row second{.kind = RowKind::kData, .start = 4096, .length = 1 << 20, .file = 1};
      Outcome outcome = Copy(spec).run({first, second});
      CHECK(outcome.failure == Failure::kShort);
      CHECK(outcome.file == 1);
      CHECK(outcome.offset <= 700000);
      CHECK(!looks_like_image(target));
    }
  }
}

TEST_CASE("CopyJob: what a source grew by is not asked for") {
  const TempFile source, target;
  source.write(0, Bytes(65536, 1));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, 10000}};
  image_of(spec).store.fd = target.fd();
  spec.size = 65536;
  auto outcome = [&](uint64_t offset, uint64_t length) {
    return Copy(spec).run({{.kind = RowKind::kData, .length = length, .offset = offset},
                           {.kind = RowKind::kZero, .start = length, .length = 65536 - length}});
  };
  CHECK(outcome(0, 10000).complete);
  CHECK(outcome(9999, 1).complete);
  CHECK(outcome(0, 10001).failure == Failure::kShort);
  CHECK(outcome(10000, 1).failure == Failure::kShort);
}

TEST_CASE("CopyJob: a compressed cluster behind the end of its file") {
  const TempFile source, target;
  source.write(0, Bytes(4096, 1));
  CopySpec spec;
  spec.sources = {{FileStore{source.fd()}, 4096}};
  image_of(spec).store.fd = target.fd();
  spec.size = 65536;
  Row row{.kind = RowKind::kDeflate,
          .length = 65536,
          .offset = 4096,
          .size = 512,
          .cluster_size = 65536};
  CHECK(Copy(spec).run({row}).failure == Failure::kShort);
}

TEST_CASE("CopyJob: damaged compressed clusters, of which it names one") {
  for (RowKind kind : {RowKind::kDeflate, RowKind::kZstd}) {
    for (bool compress : {false, true}) {
      const TempFile source, target;
      source.write(0, random_bytes(1 << 20, 27));
      CopySpec spec;
      spec.sources = {{FileStore{source.fd()}, 1 << 20}};
      image_of(spec).store.fd = target.fd();
      spec.size = 1 << 20;
      if (compress) image_of(spec).compression = {.level = 1};
      spec.memory = 64 << 20;
      std::vector<Row> rows;
      for (uint64_t at = 0; at < 1 << 20; at += 65536) {
        rows.push_back({.kind = kind,
                        .start = at,
                        .length = 65536,
                        .offset = at + 3,
                        .size = 5000,
                        .cluster_size = 65536});
      }
      Outcome outcome = Copy(spec).run(rows);
      CHECK(outcome.failure == Failure::kDecode);
      CHECK(outcome.errnum == EIO);
      CHECK(outcome.offset % 65536 == 3);
      CHECK(!looks_like_image(target));
    }
  }
}

TEST_CASE("CopyJob: a level that no compressor has") {
  Plan plan({});
  const TempFile target;
  CopySpec spec = plan.spec(target);
  image_of(spec).compression = {.level = 99};
  CHECK(Copy(spec).run(plan.rows()).errnum == EINVAL);
  CHECK(!looks_like_image(target));
}
