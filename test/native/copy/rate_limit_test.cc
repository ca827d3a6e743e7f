#include "copy/rate_limit.h"

#include <doctest/doctest.h>

using namespace qb;
using namespace std::chrono_literals;

namespace {

constexpr RateLimit::Time kStart{1000s};
constexpr uint64_t kSecond = 1 << 20;  // bytes

}  // namespace

TEST_CASE("RateLimit: none never pauses") {
  RateLimit limit(0, kStart);
  limit.spend(~0ull >> 1, kStart);
  CHECK(!limit.paused_until(kStart));
}

TEST_CASE("RateLimit: what is spent must be paid for but for a burst of a tenth of a second") {
  RateLimit limit(kSecond, kStart);
  CHECK(!limit.paused_until(kStart));
  limit.spend(kSecond / 16, kStart);
  CHECK(!limit.paused_until(kStart));
  limit.spend(kSecond / 2 - kSecond / 16, kStart);
  CHECK(limit.paused_until(kStart) == kStart + 400ms);
  CHECK(limit.paused_until(kStart + 399ms) == kStart + 400ms);
  CHECK(!limit.paused_until(kStart + 400ms));
}

TEST_CASE("RateLimit: time without reads is not saved up") {
  RateLimit limit(kSecond, kStart);
  limit.spend(kSecond, kStart + 60s);
  CHECK(limit.paused_until(kStart + 60s) == kStart + 60s + 900ms);
}
