// The system has no thread for a connection.
#include <doctest/doctest.h>

#include <cerrno>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "source/nbd_client.h"
#include "source/nbd_session.h"
#include "source/nbdkit.h"
#include "support/no_threads.h"

using namespace qb;
using namespace qb::test;

namespace {

auto open_descriptors() {
  std::filesystem::directory_iterator descriptors("/proc/self/fd");
  return std::distance(begin(descriptors), end(descriptors));
}

// Runs what cannot have a thread: it is refused with EAGAIN, and leaves nothing open.
template <typename Start>
void check_refused(const Start& start) {
  const auto before = open_descriptors();
  {
    const NoThreads none;
    try {
      start();
      FAIL("a thread out of nothing");
    } catch (const Error& error) {
      CHECK(error.errnum() == EAGAIN);
    }
  }
  CHECK(open_descriptors() == before);
}

}  // namespace

TEST_CASE("NbdClient: without a thread it is refused, and a connection it took over is closed") {
  const Nbdkit server({"memory", "1M"});
  const NbdAddress address{server.uri()};
  check_refused([&] { NbdClient client({.address = address, .size = 1 << 20}, [] {}); });

  const auto before = open_descriptors();
  auto adopted = std::make_shared<std::unique_ptr<NbdConnection>>(std::make_unique<NbdConnection>(
      address, std::vector<std::string>{}, std::make_shared<NbdCancel>()));
  (*adopted)->wait_ready();
  CHECK(open_descriptors() > before);
  {
    const NoThreads none;
    NbdClientSpec spec{.address = address, .size = 1 << 20, .adopted = adopted};
    CHECK_THROWS_AS(NbdClient(spec, [] {}), Error);
  }
  CHECK(*adopted == nullptr);
  CHECK(open_descriptors() == before);
}

TEST_CASE("NbdSession: without a thread it is refused") {
  check_refused([] { NbdSession::start({"nbd+unix:///?socket=/nowhere"}, {}); });
}

TEST_CASE("NbdConnecting: without a thread it is refused") {
  check_refused([] {
    NbdConnecting::start({"nbd+unix:///?socket=/nowhere"}, {}, std::make_shared<NbdCancel>(),
                         std::make_shared<EventFd>());
  });
}
