// What must be on the disk before what.
#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>

#include "copy/copying.h"
#include "support/engine_kinds.h"
#include "support/recording_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

// Is asked by every fdatasync() of this program while it is set: 0, or the errno to fail with.
std::function<int(int fd)> on_sync;

struct SyncSpy {
  explicit SyncSpy(std::function<int(int)> spy) { on_sync = std::move(spy); }
  ~SyncSpy() { on_sync = nullptr; }
  SyncSpy(const SyncSpy&) = delete;
  SyncSpy& operator=(const SyncSpy&) = delete;
};

}  // namespace

// Stands in front of the C library's: a sync does not go through the engine, and one that is left
// out or comes too early cannot be seen otherwise.
extern "C" int fdatasync(int fd) {
  if (on_sync) {
    errno = on_sync(fd);
    if (errno != 0) return -1;
  }
  return static_cast<int>(syscall(SYS_fdatasync, fd));
}

TEST_CASE("CopyJob: data and tables, sync, then the header and nothing more") {
  for (EngineKind kind : engine_kinds()) {
    for (bool compress : {false, true}) {
      Plan plan({.runs = 60, .seed = 31});
      const TempFile target;
      std::vector<RecordingEngine::Record> records;
      Wrapped wrapped([&](std::unique_ptr<Engine> inner) {
        return std::make_unique<RecordingEngine>(std::move(inner), records);
      });
      CopySpec spec = plan.spec(target);
      spec.engine = kind;
      spec.compress = compress;
      spec.level = 1;
      std::vector<size_t> syncs;  // requests before each
      Bytes magic;                // of the file at the last one
      uint64_t length = 0;
      {
        SyncSpy spy([&](int) {
          syncs.push_back(records.size());
          magic = target.read(0, 4);
          length = static_cast<uint64_t>(lseek(target.fd(), 0, SEEK_END));
          return 0;
        });
        CHECK(Copy(spec).run(plan.rows()).message == "");
      }
      check_target(target, plan, spec);

      REQUIRE(records.size() > 5);
      const RecordingEngine::Record& last = records.back();
      CHECK(last.op == Op::kWrite);
      CHECK(last.offset == 0);
      CHECK(last.length == 65536);
      CHECK(last.unfinished == 0);
      // Just one sync, when only the header was missing, and the file had its last length.
      REQUIRE(syncs.size() == 1);
      CHECK(syncs[0] == records.size() - 1);
      CHECK(magic == Bytes(4, 0));
      CHECK(length == static_cast<uint64_t>(lseek(target.fd(), 0, SEEK_END)));
      for (size_t i = 0; i + 1 < records.size(); i++) {
        if (records[i].op == Op::kWrite) CHECK(records[i].offset > 0);
      }
    }
  }
}

TEST_CASE("CopyJob: without a sync that succeeds there is no header") {
  Plan plan({.seed = 32});
  const TempFile target;
  SyncSpy spy([](int) { return EIO; });
  Outcome outcome = Copy(plan.spec(target)).run(plan.rows());
  CHECK(!outcome.complete);
  CHECK(outcome.failure == Failure::kWrite);
  CHECK(outcome.errnum == EIO);
  CHECK(!looks_like_image(target));
}

TEST_CASE("CopyJob: cancelled during the sync it writes no header") {
  Plan plan({.seed = 33});
  const TempFile target;
  Copy copy(plan.spec(target));
  SyncSpy spy([&](int) {
    copy.job().cancel();
    return 0;
  });
  CHECK(copy.run(plan.rows()).failure == Failure::kCancelled);
  CHECK(!looks_like_image(target));
}
