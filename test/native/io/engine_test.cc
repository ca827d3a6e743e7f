#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "io/make_engine.h"
#include "support/bytes.h"
#include "support/engine_kinds.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;
using namespace std::chrono_literals;
using Clock = Engine::Clock;

namespace {

// Runs one request to its end, which for a fresh engine is the only one.
int64_t run(Engine& engine, Request request) {
  std::vector<Request*> done;
  engine.submit(&request);
  while (done.empty()) engine.reap(done, true);
  REQUIRE(done.size() == 1);
  REQUIRE(done[0] == &request);
  return request.result;
}

// What an engine says of a write beyond the size that the process may make files of.
int64_t write_beyond_limit(EngineKind kind, uint64_t limit, uint64_t offset) {
  const TempFile file;
  Bytes bytes(8192, 1);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{limit, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const int64_t result =
      run(*make_engine(kind, 1),
          {.op = Op::kWrite, .fd = file.fd(), .offset = offset, .iov = {iovec_of(bytes)}});
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  return result;
}

}  // namespace

TEST_CASE("make_engine: kinds and names") {
  CHECK(std::string(make_engine(EngineKind::kThreads, 4)->name()) == "threads");
  const std::string automatic = make_engine(EngineKind::kAuto, 4)->name();
  CHECK(automatic == (engine_kinds().size() == 2 ? "io_uring" : "threads"));
}

TEST_CASE("make_engine: kAuto takes threads where there is no ring to be had, kUring throws") {
  constexpr unsigned kTooDeep = 100'000;  // the kernel's rings end at 32768
  CHECK(std::string(make_engine(EngineKind::kAuto, kTooDeep)->name()) == "threads");
  CHECK_THROWS_AS(make_engine(EngineKind::kUring, kTooDeep), Error);
}

TEST_CASE("Engine: writes, syncs and reads, in one piece and in several") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 4);
    CAPTURE(engine->name());
    const TempFile file;
    Bytes first(1000, 1);
    Bytes second(3000, 2);
    Bytes back(4000);
    CHECK(run(*engine,
              {.op = Op::kWrite, .fd = file.fd(), .offset = 500, .iov = {iovec_of(first)}}) ==
          1000);
    CHECK(run(*engine, {.op = Op::kWrite,
                        .fd = file.fd(),
                        .offset = 1500,
                        .iov = {{second.data(), 1}, {second.data() + 1, 2999}}}) == 3000);
    CHECK(run(*engine, {.op = Op::kSync, .fd = file.fd()}) == 0);
    CHECK(run(*engine,
              {.op = Op::kRead, .fd = file.fd(), .offset = 500, .iov = {iovec_of(back)}}) == 4000);
    Bytes expected = first;
    expected.insert(expected.end(), second.begin(), second.end());
    CHECK(back == expected);
    CHECK(file.read(0, 10000).size() == 4500);
  }
}

TEST_CASE("Engine: a read over the end is short, one behind it empty") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 1);
    CAPTURE(engine->name());
    const TempFile file;
    file.write(0, Bytes(100, 7));
    Bytes back(1000);
    CHECK(run(*engine, {.fd = file.fd(), .offset = 30, .iov = {iovec_of(back)}}) == 70);
    CHECK(run(*engine, {.fd = file.fd(), .offset = 100, .iov = {iovec_of(back)}}) == 0);
  }
}

TEST_CASE("Engine: errors are results") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 1);
    CAPTURE(engine->name());
    const TempFile file;
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    const int reader = open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
    Bytes bytes(512);
    const std::vector<iovec> iov = {iovec_of(bytes)};
    CHECK(run(*engine, {.op = Op::kWrite, .fd = full, .iov = iov}) == -ENOSPC);
    CHECK(run(*engine, {.op = Op::kWrite, .fd = reader, .iov = iov}) == -EBADF);
    CHECK(run(*engine, {.op = Op::kRead, .fd = -1, .iov = iov}) == -EBADF);
    CHECK(run(*engine, {.op = Op::kSync, .fd = -1}) == -EBADF);
    close(full);
    close(reader);
  }
}

TEST_CASE("Engine: the limit of the file size cuts a write short, then refuses it") {
  for (const EngineKind kind : engine_kinds()) {
    CAPTURE(static_cast<int>(kind));
    CHECK(write_beyond_limit(kind, 6000, 4096) == 6000 - 4096);
    CHECK(write_beyond_limit(kind, 6000, 6000) == -EFBIG);
  }
}

TEST_CASE("Engine: reap() without waiting, and with nothing to wait for") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 2);
    CAPTURE(engine->name());
    std::vector<Request*> done;
    engine->reap(done, false);
    CHECK(done.empty());
    const auto deadline = Clock::now() + 30ms;
    engine->reap(done, true, deadline);
    CHECK(Clock::now() >= deadline);
    engine->reap(done, true, Clock::now() - 1s);
    CHECK(done.empty());
  }
}

TEST_CASE("Engine: without waiting, a request is still brought to its end") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 1);
    CAPTURE(engine->name());
    const TempFile file;
    Bytes bytes(65536, 3);
    Request write{.op = Op::kWrite, .fd = file.fd(), .iov = {iovec_of(bytes)}};
    std::vector<Request*> done;
    engine->submit(&write);
    while (done.empty()) engine->reap(done, false);
    CHECK(write.result == 65536);
  }
}

TEST_CASE("Engine: a deadline that has passed does not keep a request from being handed over") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 1);
    CAPTURE(engine->name());
    const TempFile file;
    Bytes bytes(65536, 3);
    Request write{.op = Op::kWrite, .fd = file.fd(), .iov = {iovec_of(bytes)}};
    std::vector<Request*> done;
    engine->submit(&write);
    while (done.empty()) engine->reap(done, true, Clock::now() - 1ms);
    CHECK(write.result == 65536);
  }
}

TEST_CASE("Engine: wake() from another thread, again and again") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 2);
    CAPTURE(engine->name());
    std::vector<Request*> done;
    for (int i = 0; i < 20; ++i) {
      std::atomic<bool> woken = false;
      std::thread other([&] {
        std::this_thread::sleep_for(2ms);
        woken = true;
        engine->wake();
      });
      engine->reap(done, true);
      CHECK(woken);
      other.join();
    }
    CHECK(done.empty());
  }
}

TEST_CASE("Engine: a wake() before reap() counts once, and is left for the one that waits") {
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 2);
    CAPTURE(engine->name());
    std::vector<Request*> done;
    engine->wake();
    engine->wake();
    engine->reap(done, false);
    engine->reap(done, false);
    engine->reap(done, true);  // would wait for ever
    const auto deadline = Clock::now() + 30ms;
    engine->reap(done, true, deadline);
    CHECK(Clock::now() >= deadline);
    CHECK(done.empty());
  }
}

TEST_CASE("Engine: as many requests as the depth, many times over") {
  constexpr unsigned kDepth = 37;
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, kDepth);
    CAPTURE(engine->name());
    const TempFile file;
    std::vector<Bytes> blocks;
    std::vector<Request> requests(kDepth);
    for (unsigned i = 0; i < kDepth; ++i) blocks.emplace_back(4096, static_cast<uint8_t>(i + 1));
    for (int round = 0; round < 20; ++round) {
      for (unsigned i = 0; i < kDepth; ++i) {
        requests[i] = {.op = round % 2 == 0 ? Op::kWrite : Op::kRead,
                       .fd = file.fd(),
                       .offset = i * 4096ULL,
                       .iov = {iovec_of(blocks[i])}};
        engine->submit(&requests[i]);
      }
      std::vector<Request*> done;
      while (done.size() < kDepth) engine->reap(done, true);
      for (const Request* request : done) REQUIRE(request->result == 4096);
      for (unsigned i = 0; i < kDepth; ++i) {
        REQUIRE(blocks[i] == Bytes(4096, static_cast<uint8_t>(i + 1)));
      }
    }
  }
}

TEST_CASE("Engine: its end waits for what is in flight") {
  for (const EngineKind kind : engine_kinds()) {
    const TempFile file;
    Bytes bytes = random_bytes(1 << 20, 5);
    std::vector<Request> requests(8);
    {
      const auto engine = make_engine(kind, 8);
      CAPTURE(engine->name());
      for (size_t i = 0; i < requests.size(); ++i) {
        requests[i] = {
            .op = Op::kWrite, .fd = file.fd(), .offset = i << 20, .iov = {iovec_of(bytes)}};
        engine->submit(&requests[i]);
      }
    }
    for (size_t i = 0; i < requests.size(); ++i) CHECK(file.read(i << 20, 1 << 20) == bytes);
  }
}

TEST_CASE("Engine: threads are named, no more than the depth, and gone in the end") {
  const auto count = [] {
    size_t named = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name;
      std::getline(std::ifstream(task.path() / "comm") >> std::ws, name);
      named += name == "qcow2-io" ? 1 : 0;
    }
    return named;
  };
  {
    const auto engine = make_engine(EngineKind::kThreads, 3);
    const TempFile file;
    // Each names itself when it starts, which may take a moment.
    for (int i = 0; i < 1000 && count() < 3; ++i) std::this_thread::sleep_for(1ms);
    CHECK(count() == 3);
  }
  CHECK(count() == 0);
}
