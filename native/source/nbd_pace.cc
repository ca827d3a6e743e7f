#include "source/nbd_pace.h"

namespace qb {

namespace {

// One turn usually receives a packet, and at least a sector.
constexpr uint64_t kTurnBytes = 512;
constexpr uint64_t kMoreTurns = 64;

}  // namespace

void NbdPace::restart(Clock::time_point now, const NbdFlow& flow, uint64_t most) {
  most_ = most;
  answered(now, flow);
}

void NbdPace::answered(Clock::time_point now, const NbdFlow& flow) {
  since_ = now;
  bytes_ = flow.bytes;
  turns_ = flow.turns;
  timeouts_ = 0;
}

NbdPace::Verdict NbdPace::judge(Clock::time_point now, const NbdFlow& flow,
                                std::chrono::milliseconds timeout, size_t requests) {
  if (flow.turns - turns_ > requests * (most_ / kTurnBytes + kMoreTurns)) return Verdict::kEndless;
  if (now < due(timeout)) return Verdict::kFine;
  if (flow.bytes - bytes_ < kLeastBytes) return Verdict::kLate;
  since_ = now;
  bytes_ = flow.bytes;
  return ++timeouts_ > 1 + most_ / kLeastBytes ? Verdict::kLate : Verdict::kFine;
}

}  // namespace qb
