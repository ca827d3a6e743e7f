#include "source/nbd_patience.h"

#include <algorithm>

namespace qb {

void NbdPatience::answered(Clock::time_point now) {
  // Never below nothing: an honest hour buys no idle one.
  wasted_ = std::max(wasted_ - (now - since_), Clock::duration::zero());
  since_ = now;
}

bool NbdPatience::lost(Clock::time_point now, std::chrono::milliseconds timeout) {
  wasted_ += now - since_;
  since_ = now;
  return wasted_ < kTimeouts * timeout;
}

}  // namespace qb
