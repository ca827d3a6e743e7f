// What must be on the disk before what.
#include <doctest/doctest.h>

#include "copy/copying.h"
#include "support/engine_kinds.h"
#include "support/fault_engine.h"
#include "support/recording_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

bool is_sync(const Request& request) {
  return request.op == Op::kSync;
}

}  // namespace

TEST_CASE("CopyJob: data and tables, sync, then the header, sync, and nothing more") {
  for (EngineKind kind : engine_kinds()) {
    for (bool compress : {false, true}) {
      Plan plan({.runs = 60, .seed = 31});
      const TempFile target;
      std::vector<RecordingEngine::Record> records;
      CopySpec spec = plan.spec(target);
      spec.engine = kind;
      if (compress) image_of(spec).compression = {.level = 1};
      size_t syncs = 0;
      Bytes magic;  // of the file at the first sync
      uint64_t length = 0;
      Wrapped wrapped([&](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
        auto recording = std::make_unique<RecordingEngine>(std::move(inner), records);
        return std::make_unique<FaultEngine>(
            std::move(recording), [&](size_t, const Request& request) -> std::optional<Fault> {
              if (!is_sync(request) || syncs++ > 0) return std::nullopt;
              magic = target.read(0, 4);
              length = static_cast<uint64_t>(lseek(target.fd(), 0, SEEK_END));
              return std::nullopt;
            });
      });
      CHECK(Copy(spec).run(plan.rows()).message == "");
      check_target(target, plan, spec);

      REQUIRE(records.size() > 5);
      CHECK(syncs == 2);
      // The header counts as written when it is durable, too.
      CHECK(records.back().op == Op::kSync);
      CHECK(records.back().unfinished == 0);
      records.pop_back();
      const RecordingEngine::Record& last = records.back();
      CHECK(last.op == Op::kWrite);
      CHECK(last.offset == 0);
      CHECK(last.length == 65536);
      CHECK(last.unfinished == 0);
      // Just one sync, when only the header was missing, and the file had its last length.
      const RecordingEngine::Record& sync = records[records.size() - 2];
      CHECK(sync.op == Op::kSync);
      CHECK(sync.unfinished == 0);
      CHECK(magic == Bytes(4, 0));
      CHECK(length == static_cast<uint64_t>(lseek(target.fd(), 0, SEEK_END)));
      for (size_t i = 0; i + 1 < records.size(); i++) {
        if (records[i].op == Op::kWrite) CHECK(records[i].offset > 0);
        if (i + 2 < records.size()) CHECK(records[i].op != Op::kSync);
      }
    }
  }
}

TEST_CASE("CopyJob: without a sync that succeeds there is no header") {
  Plan plan({.seed = 32});
  const TempFile target;
  Wrapped wrapped([](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
    return std::make_unique<FaultEngine>(
        std::move(inner), [](size_t, const Request& request) -> std::optional<Fault> {
          return is_sync(request) ? std::optional(Fault{.errnum = EIO}) : std::nullopt;
        });
  });
  Outcome outcome = Copy(plan.spec(target)).run(plan.rows());
  CHECK(!outcome.complete);
  CHECK(outcome.failure == Failure::kWrite);
  CHECK(outcome.errnum == EIO);
  CHECK(!looks_like_image(target));
}

TEST_CASE("CopyJob: cancelled during the sync it writes no header") {
  Plan plan({.seed = 33});
  const TempFile target;
  Copy* running = nullptr;
  Wrapped wrapped([&](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
    return std::make_unique<FaultEngine>(
        std::move(inner), [&](size_t, const Request& request) -> std::optional<Fault> {
          if (is_sync(request)) running->job().cancel();
          return std::nullopt;
        });
  });
  Copy copy(plan.spec(target));
  running = &copy;
  CHECK(copy.run(plan.rows()).failure == Failure::kCancelled);
  CHECK(!looks_like_image(target));
}
