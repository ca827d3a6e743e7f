// Which engine there is.
#pragma once

#include <cstdint>
#include <memory>

#include "io/engine.h"

namespace qb {

enum class EngineKind : uint8_t { kAuto, kUring, kThreads };

// `depth`: maximum requests in flight. kAuto takes io_uring, and threads where the kernel refuses
// it (EPERM, ENOSYS, ENOMEM …); kUring throws qb::Error instead.
std::unique_ptr<Engine> make_engine(EngineKind kind, unsigned depth);

}  // namespace qb
