// The engines that this kernel gives us.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "base/error.h"
#include "io/make_engine.h"

namespace qb::test {

// Threads always; io_uring where it is not forbidden, as it is in many containers.
inline std::vector<EngineKind> engine_kinds() {
  std::vector<EngineKind> kinds = {EngineKind::kThreads};
  try {
    make_engine(EngineKind::kUring, 1);
    kinds.push_back(EngineKind::kUring);
  } catch (const Error& error) {
    MESSAGE("io_uring is refused, testing threads only: " << error.what());
  }
  return kinds;
}

}  // namespace qb::test
