// Copies of which every request can be disturbed in turn.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "copy/copying.h"
#include "support/engine_kinds.h"
#include "support/fault_engine.h"

namespace qb::test {

// As FaultEngine, with the requests counted where they can be seen when the engine is gone.
inline auto faults(FaultEngine::Plan plan, size_t& count) {
  count = 0;
  return [plan, &count](std::unique_ptr<Engine> inner) -> std::unique_ptr<Engine> {
    return std::make_unique<FaultEngine>(std::move(inner),
                                         [plan, &count](size_t n, const Request& r) {
                                           count = n + 1;
                                           return plan(n, r);
                                         });
  };
}

// The ways a small copy may go.
struct Way {
  EngineKind engine;
  Direct direct;
  unsigned bits;
};

// Each engine, direct and buffered, in large and small clusters, though not everything with all.
inline std::vector<Way> ways() {
  std::vector<Way> all;
  for (EngineKind kind : engine_kinds()) {
    bool uring = kind == EngineKind::kUring;
    all.push_back({kind, Direct::kAuto, uring ? 16u : 12u});
    all.push_back({kind, Direct::kOff, uring ? 12u : 16u});
  }
  return all;
}

// One step at a time, so that the requests come in the same order every time.
inline CopySpec spec_of(const Way& way, const Plan& plan, const TempFile& target) {
  CopySpec spec = plan.spec(target);
  spec.engine = way.engine;
  spec.direct = way.direct;
  image_of(spec).cluster_bits = way.bits;
  spec.requests = 1;
  spec.memory = 0;
  return spec;
}

inline Plan small_plan(const Way& way) {
  return Plan({.size = 4 << 20, .unit = 1ull << way.bits, .backing = true, .runs = 24, .seed = 21});
}

}  // namespace qb::test
