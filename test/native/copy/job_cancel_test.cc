// Copies that are given up.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "copy/small_copy.h"

using namespace qb;
using namespace qb::test;

TEST_CASE("CopyJob: cancelled at any request it ends, without an image or with a whole one") {
  for (const Way& way : ways()) {
    Plan plan = small_plan(way);
    size_t cancelled = 0, count = 0;
    for (size_t n = 0; n <= count; n++) {
      CAPTURE(n);
      const TempFile target;
      CopyJob* job = nullptr;
      Wrapped wrapped(faults(
          [&](size_t i, const Request&) -> std::optional<Fault> {
            if (i == n) job->cancel();
            return std::nullopt;
          },
          count));
      CopySpec spec = spec_of(way, plan, target);
      Copy copy(spec);
      job = &copy.job();
      Outcome outcome = copy.run(plan.rows());
      if (looks_like_image(target)) {
        check_target(target, plan, spec);
      } else {
        CHECK(outcome.failure == Failure::kCancelled);
        CHECK(outcome.errnum == ECANCELED);
        cancelled++;
      }
    }
    CHECK(cancelled > 10);
  }
}

TEST_CASE("CopyJob: cancelled from outside at any time, also while it waits for rows") {
  std::mt19937 random(23);
  Plan plan({.size = 4 << 20, .runs = 200, .seed = 24});
  for (int round = 0; round < 60; round++) {
    const TempFile target;
    CopySpec spec = plan.spec(target);
    if (round % 2 == 0) image_of(spec).compression = {.level = 1};
    spec.engine = engine_kinds()[static_cast<size_t>(round) % engine_kinds().size()];
    if (round % 5 == 0) spec.rate_limit = 1 << 20;
    Copy copy(spec);
    copy.start();
    std::thread other([&, delay = random() % 30000] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      copy.job().cancel();
    });
    copy.push(plan.rows(), 20);
    // Every third plan never ends.
    Outcome outcome = round % 3 == 0 ? copy.wait() : copy.finish();
    other.join();
    if (outcome.complete) {
      check_target(target, plan, spec);
    } else {
      CHECK(outcome.failure == Failure::kCancelled);
    }
  }
}

TEST_CASE("CopyJob: a copy that ends early hands nothing over for the reads that wait their turn") {
  // Many pieces to a step, so that far more reads are asked for than the engine takes at once.
  constexpr uint64_t kPiece = 512, kSize = 2 << 20;
  std::vector<Row> rows;
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    rows.push_back(
        {.kind = RowKind::kData, .start = at, .length = kPiece, .offset = kSize - kPiece - at});
  }
  for (EngineKind kind : engine_kinds()) {
    for (bool cancel : {false, true}) {
      for (size_t n : {0, 30, 500, 3000}) {
        CAPTURE(cancel);
        CAPTURE(n);
        const TempFile source, target;
        source.write(0, Bytes(kSize, 1));
        CopySpec spec;
        spec.sources = {{FileStore{source.fd()}, kSize}};
        image_of(spec).store.fd = target.fd();
        spec.engine = kind;
        spec.direct = Direct::kOff;
        spec.requests = 4;
        spec.memory = 64 << 20;
        spec.size = kSize;
        size_t count = 0;
        CopyJob* job = nullptr;
        Wrapped wrapped(faults(
            [&](size_t i, const Request&) -> std::optional<Fault> {
              if (i != n) return std::nullopt;
              // Nothing is read: no second try helps against the end of a file.
              if (!cancel) return Fault{};
              job->cancel();
              return std::nullopt;
            },
            count));
        Copy copy(spec);
        job = &copy.job();
        Outcome outcome = copy.run(rows);
        CHECK(outcome.failure == (cancel ? Failure::kCancelled : Failure::kShort));
        // What else may be with the engine, and what came back together with the last of these.
        CHECK(count <= n + 3 * (spec.requests + 16));
      }
    }
  }
}

TEST_CASE("CopyJob: destroyed at any time") {
  std::mt19937 random(25);
  Plan plan({.size = 4 << 20, .runs = 200, .seed = 26});
  for (int round = 0; round < 60; round++) {
    const TempFile target;
    CopySpec spec = plan.spec(target);
    if (round % 2 == 0) image_of(spec).compression = {.level = 1};
    spec.engine = engine_kinds()[static_cast<size_t>(round) % engine_kinds().size()];
    std::atomic<int> changes = 0;
    {
      CopyJob job(spec, Wrapped::make);
      job.start([&] { changes++; });
      size_t half = plan.rows().size() / 2;
      auto middle = plan.rows().begin() + static_cast<ptrdiff_t>(half);
      job.push({plan.rows().begin(), middle});
      if (round % 3 != 0) job.push({middle, plan.rows().end()});
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
    }
    CHECK(changes > 0);
    CHECK(Wrapped::wrong_descriptors() == 0);
    CHECK(!looks_like_image(target));
  }
}
