// How fast copies may read.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>

#include "io/engine.h"

namespace qb {

// Thread-safe: several copies may share one.
class RateLimit {
 public:
  using Time = Engine::Clock::time_point;

  // `rate`: bytes per second; 0: no limit.
  RateLimit(uint64_t rate, Time now) : rate_(rate), next_(now) {}

  // Until when nothing more may be read; nothing if it may be now.
  std::optional<Time> paused_until(Time now) const {
    if (rate_ == 0) return std::nullopt;
    std::lock_guard lock(mutex_);
    if (next_ <= now + kBurst) return std::nullopt;
    return next_ - kBurst;
  }
  // Counts bytes about to be read.
  void spend(uint64_t bytes, Time now) {
    if (rate_ == 0) return;
    std::chrono::duration<double> cost(static_cast<double>(bytes) / static_cast<double>(rate_));
    std::lock_guard lock(mutex_);
    next_ = std::max(next_, now) + std::chrono::duration_cast<Engine::Clock::duration>(cost);
  }

 private:
  // How far ahead of its rate a limited copy may read.
  static constexpr std::chrono::milliseconds kBurst{100};

  uint64_t rate_;
  mutable std::mutex mutex_;  // guards next_
  Time next_;                 // when all that was spent is paid for
};

}  // namespace qb
