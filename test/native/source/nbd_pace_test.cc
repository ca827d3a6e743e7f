#include "source/nbd_pace.h"

#include <doctest/doctest.h>

using namespace qb;
using namespace std::chrono_literals;

namespace {

const NbdPace::Clock::time_point kFirst{};
constexpr uint64_t kMebibyte = 1 << 20;
using Verdict = NbdPace::Verdict;

}  // namespace

TEST_CASE("NbdPace: nothing moves") {
  NbdPace pace;
  pace.restart(kFirst, {5}, kMebibyte);
  CHECK(pace.due(10s) == kFirst + 10s);
  CHECK(pace.judge(kFirst + 9s, {5}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kFirst + 10s, {5}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: a dribble is as good as nothing") {
  NbdPace pace;
  pace.restart(kFirst, {}, kMebibyte);
  CHECK(pace.judge(kFirst + 10s, {NbdPace::kLeastBytes - 1}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: a slow line has the time that its bytes need, and no more") {
  NbdPace pace;
  pace.restart(kFirst, {}, kMebibyte);
  auto now = kFirst;
  uint64_t moved = 0;
  for (int i = 0; i < 5; i++) {
    CHECK(pace.judge(now += 10s, {moved += NbdPace::kLeastBytes}, 10s, 1) == Verdict::kFine);
  }
  CHECK(pace.judge(now += 10s, {moved += NbdPace::kLeastBytes}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: an answer begins anew") {
  NbdPace pace;
  pace.restart(kFirst, {}, kMebibyte);
  pace.answered(kFirst + 9s, {1});
  CHECK(pace.judge(kFirst + 18s, {1}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kFirst + 19s, {1}, 10s, 1) == Verdict::kLate);
}

TEST_CASE("NbdPace: an answer that never ends") {
  NbdPace pace;
  pace.restart(kFirst, {0, 7}, kMebibyte);
  const uint64_t turns = kMebibyte / 512 + 64;
  CHECK(pace.judge(kFirst, {1, 7 + turns}, 10s, 1) == Verdict::kFine);
  CHECK(pace.judge(kFirst, {1, 8 + turns}, 10s, 1) == Verdict::kEndless);
  CHECK(pace.judge(kFirst, {1, 8 + turns}, 10s, 2) == Verdict::kFine);
}
