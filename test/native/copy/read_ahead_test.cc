#include "copy/read_ahead.h"

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "copy/layers.h"
#include "io/make_engine.h"

using namespace qb;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kMegabyte = 1 << 20;

}  // namespace

// Else a copy that has nothing under way waits for an event that never comes.
TEST_CASE("ReadAhead: a pause that stopped a start is one until the next start, though over") {
  CopySpec spec;
  spec.size = kMegabyte;
  spec.shared_rate = std::make_shared<RateLimit>(kMegabyte, Engine::Clock::now());
  std::vector<Store> stores;
  std::unique_ptr<Engine> engine = make_engine(EngineKind::kThreads, 1);
  Queue queue(*engine, 1);
  BufferPool pool;
  CopyMailbox mailbox;
  constexpr uint64_t kUnit = 65536;
  StepFeed steps(mailbox, Assembler(kUnit, kMegabyte, spec.size, false),
                 Layers(spec, kUnit, kMegabyte));
  Window window;
  LiveCounters counters;
  ReadAhead ahead(spec, kUnit, steps, window, Reader(stores, queue, pool), pool, counters);

  spec.shared_rate->spend(kMegabyte / 8, Engine::Clock::now());  // 125 ms, of which 100 are a burst
  ahead.start(false);
  std::optional<RateLimit::Time> pause = ahead.paused_until();
  REQUIRE(pause);
  std::this_thread::sleep_until(*pause + 1ms);
  CHECK(ahead.paused_until() == pause);
  ahead.start(false);
  CHECK(!ahead.paused_until());
}
