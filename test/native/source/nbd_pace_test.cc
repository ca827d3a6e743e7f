#include "source/nbd_pace.h"

#include <doctest/doctest.h>

using namespace qb;
using namespace std::chrono_literals;

namespace {

const NbdPace::Clock::time_point kStart{};
constexpr uint64_t kMiB = 1 << 20;
using Verdict = NbdPace::Verdict;

}  // namespace

TEST_CASE("NbdPace: nothing moves") {
  NbdPace pace;
  pace.restart(kStart, {5}, kMiB);
  CHECK(pace.due(10s) == kStart + 10s);
  CHECK(pace.judge(kStart + 9s, {5}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kStart + 10s, {5}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: a dribble is as good as nothing") {
  NbdPace pace;
  pace.restart(kStart, {}, kMiB);
  CHECK(pace.judge(kStart + 10s, {NbdPace::kLeastBytes - 1}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: a slow line has the time that its bytes need, and no more") {
  NbdPace pace;
  pace.restart(kStart, {}, kMiB);
  auto now = kStart;
  uint64_t moved = 0;
  for (int i = 0; i < 5; i++) {
    CHECK(pace.judge(now += 10s, {moved += NbdPace::kLeastBytes}, 10s, 1) == Verdict::kFine);
  }
  CHECK(pace.judge(now += 10s, {moved += NbdPace::kLeastBytes}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: an answer begins anew") {
  NbdPace pace;
  pace.restart(kStart, {}, kMiB);
  pace.answered(kStart + 9s, {1});
  CHECK(pace.judge(kStart + 18s, {1}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kStart + 19s, {1}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: an answer that never ends") {
  NbdPace pace;
  pace.restart(kStart, {0, 7}, kMiB);
  const uint64_t turns = kMiB / 512 + 64;
  CHECK(pace.judge(kStart, {1, 7 + turns}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kStart, {1, 8 + turns}, 10s, 1) == Verdict::kEndless);
  CHECK(pace.judge(kStart, {1, 8 + turns}, 10s, 2) == Verdict::kFine);
}
