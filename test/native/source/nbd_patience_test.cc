#include "source/nbd_patience.h"

#include <doctest/doctest.h>

using namespace qb;
using namespace std::chrono_literals;

namespace {

const NbdPatience::Clock::time_point kStart{};

}  // namespace

TEST_CASE("NbdPatience: a few answers on each connection, and then silence") {
  NbdPatience patience;
  auto now = kStart;
  patience.begin(now);
  int losses = 0;
  do {
    for (int i = 0; i < 3; i++) patience.answered(now += 1ms);
    losses++;
  } while (patience.lost(now += 10s, 10s));
  CHECK(losses == 4);
}

TEST_CASE("NbdPatience: connections dropped shortly before the timeout are as bad") {
  NbdPatience patience;
  auto now = kStart;
  patience.begin(now);
  int losses = 1;
  for (; patience.lost(now += 9s, 10s); losses++) patience.answered(now += 1ms);
  CHECK(losses == 4);
}

TEST_CASE("NbdPatience: restarts during a long copy are made up for between them") {
  NbdPatience patience;
  auto now = kStart;
  patience.begin(now);
  for (int i = 0; i < 100; i++) {
    CHECK(patience.lost(now += 10s, 10s));
    for (int k = 0; k < 10; k++) patience.answered(now += 1s);
  }
}

TEST_CASE("NbdPatience: connections that are dropped at once cost nothing") {
  NbdPatience patience;
  patience.begin(kStart);
  auto now = kStart;
  for (int i = 0; i < 1000; i++) {
    patience.answered(now += 1ms);
    CHECK(patience.lost(now += 1ms, 10s));
  }
}

TEST_CASE("NbdPatience: long honesty buys no long silence") {
  NbdPatience patience;
  auto now = kStart;
  patience.begin(now);
  patience.answered(now += 1h);
  CHECK(patience.lost(now += 10s, 10s));
  CHECK(patience.lost(now += 10s, 10s));
  CHECK_FALSE(patience.lost(now += 10s, 10s));
}

TEST_CASE("NbdPatience: time in which nothing is asked is neither wasted nor well spent") {
  NbdPatience patience;
  auto now = kStart;
  patience.begin(now);
  CHECK(patience.lost(now += 10s, 10s));
  CHECK(patience.lost(now += 10s, 10s));
  patience.begin(now += 1h);
  CHECK(patience.lost(now += 9s, 10s));
  patience.begin(now += 1h);
  patience.answered(now += 1ms);
  CHECK_FALSE(patience.lost(now += 2s, 10s));
}
