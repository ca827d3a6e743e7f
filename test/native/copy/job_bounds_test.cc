// What a copy takes of memory does not follow what it is asked for.
#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <thread>

#include "copy/copying.h"
#include "support/engine_kinds.h"
#include "support/wrapped_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kMiB = 1 << 20;

// Counts how often the copy's thread has nothing left to do but to wait.
class WaitCounter final : public WrappedEngine {
 public:
  WaitCounter(std::unique_ptr<Engine> inner, std::atomic<size_t>& waits)
      : WrappedEngine(std::move(inner)), waits_(waits) {}

  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override {
    if (wait) waits_++;
    WrappedEngine::reap(done, wait, deadline);
  }

 private:
  std::atomic<size_t>& waits_;
};

// A copy from what the test itself reads. Its thread is watched: settle() waits until it has done
// all that can be done without the test.
class CallerCopy {
 public:
  explicit CallerCopy(CopySpec spec, uint64_t source_size)
      : wrapped_([this](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
          return std::make_unique<WaitCounter>(std::move(inner), waits_);
        }) {
    spec.sources = {{std::make_shared<CallerStore>(), source_size}};
    image_of(spec).store.fd = target_.fd();
    copy_.emplace(spec);
    copy_->start();
  }

  CopyJob& job() { return copy_->job(); }
  Copy& copy() { return *copy_; }
  const TempFile& target() const { return target_; }

  // True if there is room for more rows once the thread has had a look at everything there is.
  bool settle() {
    // Woken twice it comes to wait twice, and has looked at everything in between.
    for (int i = 0; i < 2; i++) {
      size_t before = waits_;
      job().retry(~0ull);
      while (waits_ <= before && !job().ended()) std::this_thread::yield();
    }
    return job().has_room();
  }

 private:
  TempFile target_;
  std::atomic<size_t> waits_ = 0;
  Wrapped wrapped_;
  std::optional<Copy> copy_;
};

}  // namespace

TEST_CASE("CopyJob: steps without data behind a slow read are bounded") {
  constexpr uint64_t kCluster = 65536, kRows = 1000, kBatches = 300;
  for (bool hash : {false, true}) {
    CopySpec spec;
    spec.size = kCluster + kBatches * kRows * kCluster;
    image_of(spec).backing_file = "base.raw";
    image_of(spec).backing_format = "raw";
    spec.requests = 64;
    spec.memory = 48 * kMiB;
    spec.hash = hash;
    CallerCopy running(spec, kCluster);
    running.job().push({{.kind = RowKind::kData, .length = kCluster}});
    uint64_t at = kCluster;
    size_t accepted = 0;
    auto push = [&] {
      std::vector<Row> rows;
      for (uint64_t i = 0; i < kRows; i++, at += kCluster) {
        rows.push_back({.kind = i % 2 == 0 ? RowKind::kZero : RowKind::kSkip,
                        .start = at,
                        .length = kCluster});
      }
      running.job().push(std::move(rows));
      accepted++;
    };
    while (accepted < kBatches && running.settle()) push();
    CHECK(accepted < 20);
    // The read ends, and all goes on.
    std::vector<CallerRequest> wanted = running.job().caller_source()->take();
    REQUIRE(wanted.size() == 1);
    Bytes bytes(kCluster, 1);
    running.job().caller_source()->complete_read(wanted[0].id, bytes.data(), bytes.size());
    while (accepted < kBatches) {
      if (running.settle()) push();
    }
    CHECK(running.copy().finish().message == "");
    CopyCounters counters = running.job().counters();
    CHECK(counters.data == kCluster);
    CHECK(counters.zero == kBatches * kRows / 2 * kCluster);
    CHECK(counters.unchanged == kBatches * kRows / 2 * kCluster);
  }
}

TEST_CASE(
    "CopyJob: a chunk of many compressed clusters is read in rounds that memory is there for") {
  // As where each sector comes from another image of a chain.
  constexpr uint64_t kPiece = 512, kStream = 256 << 10, kSize = 4 * kMiB;
  constexpr uint64_t kMost = 48 * kMiB;
  // A stream that expands to a cluster: what it reads does not matter.
  Plan plan({.size = kSize, .seed = 41});
  const Row* stream = nullptr;
  for (const Row& row : plan.rows()) {
    if (row.kind == RowKind::kDeflate) stream = &row;
  }
  REQUIRE(stream != nullptr);
  Bytes content = plan.source(2).read(stream->offset, stream->size);
  content.resize(kStream);

  std::vector<Row> rows;
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    Row row = *stream;
    row.start = at;
    row.length = kPiece;
    row.file = 0;
    row.within = 0;
    row.offset = at / kPiece * kStream;
    row.size = kStream;
    rows.push_back(row);
  }
  for (unsigned requests : {1u, 64u}) {
    CAPTURE(requests);
    CopySpec spec;
    spec.size = kSize;
    spec.requests = requests;
    spec.memory = kMost;
    CallerCopy running(spec, kSize / kPiece * kStream);
    running.copy().push(rows, rows.size());
    running.job().close();
    uint64_t most = 0, reads = 0;
    while (!running.job().ended()) {
      running.settle();
      uint64_t asked = 0;
      std::vector<CallerRequest> wanted = running.job().caller_source()->take();
      for (const CallerRequest& read : wanted) asked += read.length;
      most = std::max(most, asked);
      for (const CallerRequest& read : wanted) {
        reads++;
        running.job().caller_source()->complete_read(read.id, content.data(), read.length);
      }
    }
    CHECK(running.copy().wait().message == "");
    CHECK(reads == rows.size());
    // All of it would be 2 GiB. The head may take one round beyond the budget.
    CHECK(most <= kMost + 9 * kMiB);
    CHECK(most >= 4 * kMiB);
  }
}

TEST_CASE("CopyJob: a compressed cluster that many pieces lie in is read once for each chunk") {
  // More clusters than a round takes, and their pieces in turn.
  constexpr uint64_t kPiece = 512, kStream = 2 * kMiB, kClusters = 16, kSize = kMiB;
  Plan plan({.size = kSize, .seed = 41});
  const Row* stream = nullptr;
  for (const Row& row : plan.rows()) {
    if (row.kind == RowKind::kDeflate) stream = &row;
  }
  REQUIRE(stream != nullptr);
  Bytes content = plan.source(2).read(stream->offset, stream->size);
  content.resize(kStream);
  std::vector<Row> rows;
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    Row row = *stream;
    row.start = at;
    row.length = kPiece;
    row.file = 0;
    row.within = 0;
    row.offset = at / kPiece % kClusters * kStream;
    row.size = kStream;
    rows.push_back(row);
  }
  CopySpec spec;
  spec.size = kSize;
  spec.memory = 48 * kMiB;
  CallerCopy running(spec, kClusters * kStream);
  running.copy().push(rows, rows.size());
  running.job().close();
  std::map<uint64_t, int> times;
  while (!running.job().ended()) {
    running.settle();
    for (const CallerRequest& read : running.job().caller_source()->take()) {
      times[read.offset]++;
      running.job().caller_source()->complete_read(read.id, content.data(), read.length);
    }
  }
  CHECK(running.copy().wait().message == "");
  CHECK(times.size() == kClusters);
  for (const auto& [offset, count] : times) CHECK(count == 1);
}
