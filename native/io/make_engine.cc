#include "io/make_engine.h"

#include "base/error.h"
#include "io/thread_engine.h"
#include "io/uring_engine.h"

namespace qb {

std::unique_ptr<Engine> make_engine(EngineKind kind, unsigned depth) {
  if (kind == EngineKind::kThreads) return std::make_unique<ThreadEngine>(depth);
  try {
    return std::make_unique<UringEngine>(depth);
  } catch (const Error&) {
    if (kind == EngineKind::kUring) throw;
    return std::make_unique<ThreadEngine>(depth);
  }
}

}  // namespace qb
