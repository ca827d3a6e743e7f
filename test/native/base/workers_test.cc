#include "base/workers.h"

#include <doctest/doctest.h>

#include <atomic>
#include <latch>
#include <memory>

#include "base/error.h"
#include "support/no_threads.h"

using namespace qb;
using namespace qb::test;

TEST_CASE("Workers: every task runs once") {
  constexpr int kTasks = 1000;
  std::vector<std::atomic<int>> runs(kTasks);
  std::latch done(kTasks);
  Workers workers(3);
  for (int i = 0; i < kTasks; i++) {
    workers.submit([&, i] {
      runs[i]++;
      done.count_down();
    });
  }
  done.wait();
  for (std::atomic<int>& count : runs) CHECK(count == 1);
}

TEST_CASE("Workers: as many at once as there are threads, and no more") {
  constexpr int kThreads = 3;
  std::atomic<int> running = 0, most = 0;
  // Opens only when all three are inside at the same time.
  std::latch together(kThreads), done(3 * kThreads);
  Workers workers(kThreads);
  for (int i = 0; i < 3 * kThreads; i++) {
    workers.submit([&, i] {
      int now = ++running;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) continue;
      if (i < kThreads) together.arrive_and_wait();
      running--;
      done.count_down();
    });
  }
  done.wait();
  CHECK(most == kThreads);
}

TEST_CASE("Workers: tasks may hand in tasks") {
  std::latch done(100);
  Workers workers(1);
  std::function<void(int)> countdown = [&](int left) {
    done.count_down();
    if (left > 1) workers.submit([&, left] { countdown(left - 1); });
  };
  workers.submit([&] { countdown(100); });
  done.wait();
}

TEST_CASE("Workers: the end waits for what runs and drops what waits") {
  auto waiting = std::make_shared<int>();
  std::latch started(1);
  std::atomic<bool> finished = false;
  std::atomic<int> later = 0;
  {
    Workers workers(1);
    workers.submit([&] {
      started.count_down();
      // Until the others were dropped: only then the end has begun, and waits.
      while (waiting.use_count() > 1) std::this_thread::yield();
      finished = true;
    });
    for (int i = 0; i < 10; i++) workers.submit([&later, waiting] { later++; });
    started.wait();
  }
  CHECK(finished);
  CHECK(later == 0);
  CHECK(waiting.use_count() == 1);
}

TEST_CASE("Workers: none is started for nothing") {
  const Workers workers(4);
}

TEST_CASE("Workers: fewer threads than wanted do the work, none at all is an error") {
  for (int can : {0, 1, 2}) {
    CAPTURE(can);
    std::atomic<int> runs = 0;
    std::latch done(10);
    Workers workers(4);
    const NoThreads none(can);
    auto submit = [&] {
      workers.submit([&] {
        runs++;
        done.count_down();
      });
    };
    if (can == 0) {
      CHECK_THROWS_AS(submit(), Error);
      CHECK(runs == 0);
      continue;
    }
    for (int i = 0; i < 10; i++) submit();
    done.wait();
    CHECK(runs == 10);
  }
}
