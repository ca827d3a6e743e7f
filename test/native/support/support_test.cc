// The engines for tests do what they say.
#include <doctest/doctest.h>

#include "io/make_engine.h"
#include "io/queue.h"
#include "support/bytes.h"
#include "support/descriptor_engine.h"
#include "support/fault_engine.h"
#include "support/recording_engine.h"
#include "support/stop_engine.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

namespace {

std::unique_ptr<Engine> plain() {
  return make_engine(EngineKind::kThreads, 4);
}

// Four writes of a page each, then a sync, one after the other. Returns the first error.
int write_four(Engine& engine, const TempFile& file) {
  Queue queue(engine, 4);
  Bytes page(4096, 1);
  std::vector<Transfer*> done;
  for (uint64_t i = 0; i < 5; ++i) {
    Transfer transfer{.op = i < 4 ? Op::kWrite : Op::kSync, .fd = file.fd(), .offset = i * 4096};
    if (i < 4) transfer.iov = {iovec_of(page)};
    queue.submit(&transfer);
    while (queue.in_flight() > 0) queue.reap(done, true);
    if (transfer.error != 0) return transfer.error;
  }
  return 0;
}

}  // namespace

TEST_CASE("RecordingEngine: lists what was asked for") {
  const TempFile file;
  std::vector<RecordingEngine::Record> records;
  RecordingEngine engine(plain(), records);
  CHECK(write_four(engine, file) == 0);
  REQUIRE(records.size() == 5);
  CHECK(records[1] == RecordingEngine::Record{Op::kWrite, file.fd(), 4096, 4096, 0});
  CHECK(records[4].op == Op::kSync);
}

TEST_CASE("FaultEngine: hits the request it was told to") {
  const TempFile file;
  FaultEngine engine(plain(), FaultEngine::nth(2, {.errnum = EIO}));
  CHECK(write_four(engine, file) == EIO);
  CHECK(engine.count() == 3);
  CHECK(file.read(0, 65536).size() == 2 * 4096);
}

TEST_CASE("StopEngine: nothing reaches the file any more") {
  for (const int errnum : {0, EIO}) {
    for (size_t writes = 0; writes <= 4; ++writes) {
      const TempFile file;
      StopEngine engine(plain(), writes, errnum);
      CHECK(write_four(engine, file) == (writes < 4 ? errnum : 0));
      CHECK(engine.stopped() == (writes < 4));
      CHECK(file.read(0, 65536).size() == writes * 4096);
    }
  }
}

TEST_CASE("DescriptorEngine: notices a descriptor that was closed, and a number that was reused") {
  size_t wrong = 0;
  const TempFile first;
  const TempFile second;
  DescriptorEngine engine(plain(), wrong);
  CHECK(write_four(engine, first) == 0);
  CHECK(wrong == 0);
  const int fd = dup(first.fd());
  Bytes page(4096, 1);
  auto read_page = [&] {
    Queue queue(engine, 1);
    std::vector<Transfer*> done;
    Transfer transfer{.fd = fd, .iov = {iovec_of(page)}};
    queue.submit(&transfer);
    while (queue.in_flight() > 0) queue.reap(done, true);
  };
  read_page();
  CHECK(wrong == 0);
  dup2(second.fd(), fd);
  read_page();
  CHECK(wrong > 0);
  wrong = 0;
  close(fd);
  read_page();
  CHECK(wrong > 0);
}
