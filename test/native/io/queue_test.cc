#include "io/queue.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <limits.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "io/make_engine.h"
#include "support/bytes.h"
#include "support/engine_kinds.h"
#include "support/fault_engine.h"
#include "support/recording_engine.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr EngineKind kAny = EngineKind::kThreads;

void finish(Queue& queue) {
  std::vector<Transfer*> done;
  while (queue.in_flight() > 0) queue.reap(done, true);
}

// One transfer through an engine that disturbs it. Returns the requests it took.
size_t run(Transfer& transfer, FaultEngine::Plan plan) {
  FaultEngine engine(make_engine(kAny, 2), std::move(plan));
  Queue queue(engine, 2);
  queue.submit(&transfer);
  finish(queue);
  return engine.count();
}

bool same(const iovec& a, const iovec& b) {
  return a.iov_base == b.iov_base && a.iov_len == b.iov_len;
}

}  // namespace

TEST_CASE("Queue: more than the depth wait for their turn, in order") {
  const TempFile file;
  Bytes bytes(512, 1);
  std::vector<RecordingEngine::Record> records;
  RecordingEngine engine(make_engine(kAny, 3), records);
  Queue queue(engine, 3);
  std::vector<Transfer> transfers(20);
  for (size_t i = 0; i < transfers.size(); ++i) {
    transfers[i] = {.op = Op::kWrite, .fd = file.fd(), .offset = i * 512, .iov = {iovec_of(bytes)}};
    queue.submit(&transfers[i]);
  }
  CHECK(records.size() == 3);
  CHECK(queue.in_flight() == 20);
  std::vector<Transfer*> done;
  while (queue.in_flight() > 0) queue.reap(done, true);
  CHECK(done.size() == 20);
  REQUIRE(records.size() == 20);
  for (size_t i = 0; i < records.size(); ++i) {
    CHECK(records[i].offset == i * 512);
    CHECK(records[i].unfinished < 3);
    CHECK(transfers[i].done == 512);
  }
}

TEST_CASE("Queue: once stopped it hands nothing over and gives everything back") {
  const TempFile file;
  file.write(0, Bytes(8192, 1));
  std::vector<RecordingEngine::Record> records;
  // Each read is cut short, so that it would go on.
  auto fault = std::make_unique<FaultEngine>(
      make_engine(kAny, 3), [](size_t, const Request&) { return Fault{.bytes = 100}; });
  RecordingEngine engine(std::move(fault), records);
  Queue queue(engine, 3);
  std::vector<Bytes> bytes(10, Bytes(512));
  std::vector<Transfer> transfers(10);
  for (size_t i = 0; i < transfers.size(); ++i) {
    transfers[i] = {.fd = file.fd(), .offset = i * 512, .iov = {iovec_of(bytes[i])}};
    if (i == 8) queue.stop();
    queue.submit(&transfers[i]);
  }
  std::vector<Transfer*> done;
  while (queue.in_flight() > 0) queue.reap(done, true);
  CHECK(records.size() == 3);
  REQUIRE(done.size() == 10);
  for (size_t i = 0; i < transfers.size(); ++i) {
    CHECK(transfers[i].error == ECANCELED);
    CHECK(transfers[i].done == (i < 3 ? 100 : 0));
  }
}

TEST_CASE("Queue: a short read goes on, its iov left as it was") {
  const TempFile file;
  const Bytes content = random_bytes(10000, 1);
  file.write(0, content);
  Bytes a(3000);
  Bytes b(5000);
  Transfer read{.fd = file.fd(), .offset = 1000, .iov = {iovec_of(a), iovec_of(b)}};
  const auto iov = read.iov;
  CHECK(run(read, FaultEngine::nth(0, {.bytes = 3500})) == 2);
  CHECK(read.length == 8000);
  CHECK(read.done == 8000);
  CHECK(read.error == 0);
  CHECK(std::equal(iov.begin(), iov.end(), read.iov.begin(), read.iov.end(), same));
  CHECK(std::equal(a.begin(), a.end(), content.begin() + 1000));
  CHECK(std::equal(b.begin(), b.end(), content.begin() + 4000));
}

TEST_CASE("Queue: after a short transfer it goes on from an aligned place") {
  const TempFile file;
  Bytes bytes = random_bytes(8192, 2);
  std::vector<RecordingEngine::Record> records;
  auto fault =
      std::make_unique<FaultEngine>(make_engine(kAny, 1), FaultEngine::nth(0, {.bytes = 5000}));
  RecordingEngine engine(std::move(fault), records);
  Queue queue(engine, 1);
  Transfer write{.op = Op::kWrite,
                 .fd = file.fd(),
                 .offset = 4096,
                 .iov = {iovec_of(bytes)},
                 .alignment = 4096};
  queue.submit(&write);
  finish(queue);
  CHECK(records == std::vector<RecordingEngine::Record>{{Op::kWrite, file.fd(), 4096, 8192, 0},
                                                        {Op::kWrite, file.fd(), 8192, 4096, 0}});
  CHECK(write.done == 8192);
  CHECK(file.read(4096, 8192) == bytes);
}

TEST_CASE("Queue: a read ends at the end of the file, the rest untouched") {
  const TempFile file;
  file.write(0, Bytes(5000, 1));
  for (const uint64_t alignment : {1, 512, 4096}) {
    CAPTURE(alignment);
    Bytes bytes(8192, 9);
    Transfer read{.fd = file.fd(), .iov = {iovec_of(bytes)}, .alignment = alignment};
    run(read, [](size_t, const Request&) { return std::nullopt; });
    CHECK(read.done == 5000);
    CHECK(read.error == 0);
    Bytes expected(5000, 1);
    expected.resize(8192, 9);
    CHECK(bytes == expected);
  }
}

TEST_CASE("Queue: a short write goes on, one of nothing is EIO") {
  const TempFile file;
  Bytes bytes = random_bytes(6000, 3);
  Transfer write{.op = Op::kWrite, .fd = file.fd(), .iov = {iovec_of(bytes)}};
  CHECK(run(write, FaultEngine::nth(0, {.bytes = 1})) == 2);
  CHECK(write.done == 6000);
  CHECK(file.read(0, 6000) == bytes);
  CHECK(run(write, FaultEngine::nth(0, {.bytes = 0})) == 1);
  CHECK(write.error == EIO);
  CHECK(write.done == 0);
}

TEST_CASE("Queue: an error ends it, with what was done before") {
  const TempFile file;
  Bytes bytes(6000, 3);
  Transfer write{.op = Op::kWrite, .fd = file.fd(), .iov = {iovec_of(bytes)}};
  run(write, [](size_t index, const Request&) {
    return index == 0 ? Fault{.bytes = 2000} : Fault{.errnum = ENOSPC};
  });
  CHECK(write.error == ENOSPC);
  CHECK(write.done == 2000);
}

TEST_CASE("Queue: EINTR and EAGAIN are asked again, EAGAIN not for ever") {
  const TempFile file;
  Bytes bytes(6000, 3);
  Transfer write{.op = Op::kWrite, .fd = file.fd(), .iov = {iovec_of(bytes)}};
  const size_t count = run(write, [](size_t index, const Request&) -> std::optional<Fault> {
    if (index < 300) return Fault{.errnum = EINTR};
    if (index < 350) return Fault{.errnum = EAGAIN};
    return std::nullopt;
  });
  CHECK(count == 351);
  CHECK(write.error == 0);
  CHECK(write.done == 6000);
  CHECK(run(write, [](size_t, const Request&) { return Fault{.errnum = EAGAIN}; }) < 1000);
  CHECK(write.error == EAGAIN);
}

TEST_CASE("Queue: a sync, and its error") {
  const TempFile file;
  Transfer sync{.op = Op::kSync, .fd = file.fd()};
  CHECK(run(sync, [](size_t, const Request&) { return std::nullopt; }) == 1);
  CHECK(sync.error == 0);
  run(sync, FaultEngine::nth(0, {.errnum = EIO}));
  CHECK(sync.error == EIO);
}

TEST_CASE("Queue: more pieces than the kernel takes at once") {
  const TempFile file;
  Bytes bytes = random_bytes(3 * IOV_MAX + 7, 4);
  Bytes back(bytes.size());
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 2);
    CAPTURE(engine->name());
    Queue queue(*engine, 2);
    Transfer write{.op = Op::kWrite, .fd = file.fd(), .offset = 77};
    Transfer read{.op = Op::kRead, .fd = file.fd(), .offset = 77};
    for (uint8_t& byte : bytes) write.iov.push_back({&byte, 1});
    for (uint8_t& byte : back) read.iov.push_back({&byte, 1});
    queue.submit(&write);
    finish(queue);
    queue.submit(&read);
    finish(queue);
    CHECK(write.done == bytes.size());
    CHECK(read.done == bytes.size());
    CHECK(back == bytes);
    std::fill(back.begin(), back.end(), 0);
    file.truncate(0);
  }
}

TEST_CASE("Queue: its end waits for what is with the kernel and forgets the rest") {
  for (const EngineKind kind : engine_kinds()) {
    const TempFile file;
    Bytes bytes = random_bytes(1 << 20, 5);
    const auto engine = make_engine(kind, 4);
    CAPTURE(engine->name());
    std::vector<Transfer> transfers(5);
    {
      Queue queue(*engine, 4);
      for (size_t i = 0; i < transfers.size(); ++i) {
        transfers[i] = {
            .op = Op::kWrite, .fd = file.fd(), .offset = i << 20, .iov = {iovec_of(bytes)}};
        queue.submit(&transfers[i]);
      }
    }
    for (size_t i = 0; i < 4; ++i) CHECK(file.read(i << 20, 1 << 20) == bytes);
    CHECK(file.read(4 << 20, 1).empty());
  }
}

TEST_CASE("Queue: wake() and the deadline come through") {
  using namespace std::chrono_literals;
  for (const EngineKind kind : engine_kinds()) {
    const auto engine = make_engine(kind, 1);
    CAPTURE(engine->name());
    Queue queue(*engine, 1);
    std::vector<Transfer*> done;
    engine->wake();
    queue.reap(done, true);
    const auto deadline = Engine::Clock::now() + 20ms;
    queue.reap(done, true, deadline);
    CHECK(Engine::Clock::now() >= deadline);
    CHECK(done.empty());
  }
}

// Rounds of transfers that do not touch each other, over a disturbed engine, against plain memory.
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kBlocks = 256;

struct alignas(kBlock) Block {
  uint8_t bytes[kBlock];
};

struct Disturb {
  std::mt19937& random;
  uint64_t unit;  // short transfers are multiples of it, as the file would have it

  std::optional<Fault> operator()(size_t, const Request& request) {
    switch (random() % 8) {
      case 0:
        return Fault{.errnum = random() % 2 != 0 ? EINTR : EAGAIN};
      case 1:
      case 2: {
        const uint64_t units = length_of(request) / unit;
        if (units < 2) return std::nullopt;
        return Fault{.bytes = unit * (1 + random() % (units - 1))};
      }
      default:
        return std::nullopt;
    }
  }
};

void transfers_against_model(EngineKind kind, int flags, uint64_t alignment) {
  const TempFile file;
  int fd = open(file.path().c_str(), O_RDWR | O_CLOEXEC | flags);
  if (fd < 0) fd = open(file.path().c_str(), O_RDWR | O_CLOEXEC);  // no O_DIRECT on tmpfs
  REQUIRE(fd >= 0);
  file.truncate(kBlocks * kBlock);
  std::mt19937 random(17);
  std::vector<Block> model(kBlocks);
  std::vector<Block> memory(kBlocks);
  FaultEngine engine(make_engine(kind, 8), Disturb{random, alignment});
  Queue queue(engine, 8);

  for (int round = 0; round < 20; ++round) {
    std::vector<Transfer> transfers;
    for (size_t at = random() % 4; at < kBlocks;) {
      const size_t count = std::min<size_t>(1 + random() % 16, kBlocks - at);
      const bool write = random() % 2 != 0;
      Transfer transfer{.op = write ? Op::kWrite : Op::kRead,
                        .fd = fd,
                        .offset = at * kBlock,
                        .alignment = alignment};
      // Unaligned files get odd places and lengths too.
      const size_t cut = alignment == 1 ? random() % 1000 : 0;
      transfer.offset += cut;
      for (size_t i = at; i < at + count; ++i) {
        const size_t from = i == at ? cut : 0;
        if (write) {
          std::fill(memory[i].bytes + from, memory[i].bytes + kBlock, random());
          std::copy(memory[i].bytes + from, memory[i].bytes + kBlock, model[i].bytes + from);
        } else {
          std::fill(memory[i].bytes, memory[i].bytes + kBlock, 0xee);
          std::copy(model[i].bytes, model[i].bytes + from, memory[i].bytes);
        }
        transfer.iov.push_back({memory[i].bytes + from, kBlock - from});
      }
      transfers.push_back(std::move(transfer));
      at += count + random() % 3;
    }
    std::shuffle(transfers.begin(), transfers.end(), random);
    for (Transfer& transfer : transfers) queue.submit(&transfer);
    finish(queue);
    for (const Transfer& transfer : transfers) {
      REQUIRE(transfer.error == 0);
      REQUIRE(transfer.done == transfer.length);
      for (const iovec& part : transfer.iov) {
        const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
        const auto at = static_cast<size_t>(bytes - memory[0].bytes);
        REQUIRE(std::equal(bytes, bytes + part.iov_len, model[0].bytes + at));
      }
    }
  }
  const Bytes content = file.read(0, kBlocks * kBlock);
  CHECK(
      std::equal(content.begin(), content.end(), model[0].bytes, model[0].bytes + content.size()));
  close(fd);
}

}  // namespace

TEST_CASE("Queue: random transfers against a model, buffered and direct") {
  for (const EngineKind kind : engine_kinds()) {
    CAPTURE(static_cast<int>(kind));
    SUBCASE("buffered") {
      transfers_against_model(kind, 0, 1);
    }
    SUBCASE("direct") {
      transfers_against_model(kind, O_DIRECT, kBlock);
    }
  }
}
