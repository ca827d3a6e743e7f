// What a copy is told while it runs: to read again, to give up, to make durable.
#include <doctest/doctest.h>

#include <atomic>
#include <set>

#include "copy/small_copy.h"
#include "support/recording_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

// A copy whose reads fail as often as wanted, and everything it tells of that.
struct Failing {
  explicit Failing(unsigned times)
      : wrapped([this, times](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
          return std::make_unique<FaultEngine>(
              std::move(inner),
              [this, times](size_t, const Request& request) -> std::optional<Fault> {
                if (request.op != Op::kRead || failures[request.offset] >= times) {
                  return std::nullopt;
                }
                failures[request.offset]++;
                return Fault{.errnum = EIO};
              });
        }) {}

  std::map<uint64_t, unsigned> failures;
  Wrapped wrapped;
};

CopySpec held(const Plan& plan, const TempFile& target) {
  CopySpec spec = plan.spec(target);
  spec.hold_failures = true;
  return spec;
}

// Hands the plan over and answers each failure as told, until the copy has ended.
template <typename Answer>
Outcome answer_all(CopySpec spec, const Plan& plan, const Answer& answer) {
  Copy copy(spec);
  copy.start();
  copy.push(plan.rows(), 7);
  copy.job().close();
  while (!copy.job().ended()) {
    for (const Area& area : copy.job().take_failed()) answer(copy.job(), area);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return copy.wait();
}

}  // namespace

TEST_CASE("CopyJob: what fails is read again when it is told to, and the image is right") {
  for (unsigned times : {1, 3}) {
    Plan plan({.size = 4 << 20, .backing = true, .runs = 40, .seed = 41});
    Failing failing(times);
    const TempFile target;
    CopySpec spec = held(plan, target);
    std::multiset<uint64_t> failed;
    Outcome outcome = answer_all(spec, plan, [&](CopyJob& job, const Area& area) {
      CHECK(area.length > 0);
      failed.insert(area.start);
      job.retry(area.start);
    });
    CHECK(outcome.message == "");
    CHECK(failed.size() > times);
    check_target(target, plan, spec);
  }
}

TEST_CASE("CopyJob: given up, it ends with what the area failed with") {
  Plan plan({.size = 4 << 20, .runs = 40, .seed = 42});
  Failing failing(1000);
  const TempFile target;
  Outcome outcome = answer_all(held(plan, target), plan,
                               [&](CopyJob& job, const Area& area) { job.give_up(area.start); });
  CHECK(!outcome.complete);
  CHECK(outcome.failure == Failure::kRead);
  CHECK(outcome.errnum == EIO);
  CHECK(!looks_like_image(target));
}

TEST_CASE("CopyJob: commands about areas that did not fail change nothing") {
  Plan plan({.seed = 43});
  const TempFile target;
  CopySpec spec = held(plan, target);
  Copy copy(spec);
  copy.start();
  copy.job().retry(0);
  copy.job().give_up(0);
  copy.job().give_up(12345);
  copy.push(plan.rows(), 3);
  CHECK(copy.finish().message == "");
  check_target(target, plan, spec);
}

TEST_CASE("CopyJob: a copy that waits for an answer can be cancelled") {
  Plan plan({.seed = 44});
  Failing failing(1000);
  const TempFile target;
  Outcome outcome =
      answer_all(held(plan, target), plan, [](CopyJob& job, const Area&) { job.cancel(); });
  CHECK(outcome.failure == Failure::kCancelled);
}

TEST_CASE("CopyJob: what it calls durable is written and synced by then") {
  for (bool compress : {false, true}) {
    Plan plan({.size = 8 << 20, .compressed = false, .runs = 200, .seed = 45});
    const TempFile target;
    std::vector<RecordingEngine::Record> records;
    Wrapped wrapped([&](std::unique_ptr<Engine> inner) {
      return std::make_unique<RecordingEngine>(std::move(inner), records);
    });
    CopySpec spec = plan.spec(target);
    if (compress) image_of(spec).compression = {.level = 1};
    Copy copy(spec);
    copy.start();
    uint64_t durable = 0;
    size_t syncs = 0;
    auto sync = [&] {
      copy.job().sync();
      std::optional<uint64_t> synced;
      while (!synced) synced = copy.job().take_synced();
      syncs++;
      CHECK(*synced >= durable);
      CHECK(*synced <= copy.job().counters().position);
      durable = *synced;
    };
    for (size_t at = 0; at < plan.rows().size(); at += 20) {
      size_t count = std::min<size_t>(20, plan.rows().size() - at);
      auto from = plan.rows().begin() + static_cast<ptrdiff_t>(at);
      copy.push({from, from + static_cast<ptrdiff_t>(count)}, 20);
      sync();
    }
    // All but what waits for the end of the plan, once it is read.
    while (durable < 6 << 20) sync();
    CHECK(copy.finish().message == "");
    check_target(target, plan, spec);
    // Each found nothing under way that it had to make durable, but reads.
    size_t found = 0;
    for (const auto& record : records) found += record.op == Op::kSync ? 1 : 0;
    // One before the header and one after it, besides.
    CHECK(found == syncs + 2);
  }
}
