// Whether a server that owes answers is getting on with them. A deadline for whole answers would
// fail on a slow line, and one for silence would let a server dribble for ever.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace qb {

// Bytes transferred over a connection so far.
struct NbdFlow {
  // Both directions, as the kernel reports them: may count a byte more than once, or miss one.
  uint64_t bytes = 0;
  // Times that something was received or sent. libnbd takes one chunk of an answer at a time.
  uint64_t turns = 0;
};

// Not thread-safe.
class NbdPace {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Verdict {
    kFine,
    kLate,     // too little moved in a whole timeout, or enough did and still nothing is complete
    kEndless,  // more came than any answer is made of
  };

  // Bytes that must move within a timeout, if nothing is answered in it.
  static constexpr uint64_t kLeastBytes = 256 << 10;

  // The first request is sent, to be answered by at most `most` bytes either way, as each of those
  // that are sent meanwhile.
  void restart(Clock::time_point now, const NbdFlow& flow, uint64_t most);
  // A request was answered.
  void answered(Clock::time_point now, const NbdFlow& flow);
  // When judge() is to be asked next at the latest.
  Clock::time_point due(std::chrono::milliseconds timeout) const { return since_ + timeout; }
  // `requests`: that are not answered.
  Verdict judge(Clock::time_point now, const NbdFlow& flow, std::chrono::milliseconds timeout,
                size_t requests);

 private:
  Clock::time_point since_;
  uint64_t bytes_ = 0;  // that had moved at `since_`
  uint64_t turns_ = 0;  // there had been at the last answer
  uint64_t most_ = 0;
  uint64_t timeouts_ = 0;  // since the last answer
};

}  // namespace qb
