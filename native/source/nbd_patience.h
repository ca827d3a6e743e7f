// How long a server may keep its client waiting for nothing, over all connections and losses.
#pragma once

#include <chrono>

namespace qb {

// Each time a connection is lost, its requests are repeated on another. A server that
// answers a little on each one and then falls silent would draw a copy out by a timeout for every
// few answers. So the time that ended in a loss is compared with the time that ended in an answer:
// the first may be ahead of the second by a few timeouts. A line that is slow but flows loses
// nothing, and a server that is restarted now and then during a long copy has long made up for it;
// one that only wastes time ends the run after kTimeouts of them, however long it was honest
// before.
//
// Time in which nothing was asked counts for neither. Not thread-safe.
class NbdPatience {
 public:
  using Clock = std::chrono::steady_clock;

  static constexpr int kTimeouts = 3;

  // Something is waited for from now on, and nothing was before.
  void begin(Clock::time_point now) { since_ = now; }
  // A request was answered, on any connection.
  void answered(Clock::time_point now);
  // A connection was lost, or could not be made. False if that is enough.
  bool lost(Clock::time_point now, std::chrono::milliseconds timeout);

 private:
  Clock::time_point since_;    // the last of the three above
  Clock::duration wasted_{0};  // more than was made good by answers since
};

}  // namespace qb
