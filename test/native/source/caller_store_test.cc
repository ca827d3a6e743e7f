#include "source/caller_store.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <thread>

#include "copy/copying.h"

using namespace qb;
using namespace qb::test;

namespace {

Transfer read_of(Bytes& memory, uint64_t offset) {
  return {.offset = offset, .iov = {{memory.data(), memory.size()}}};
}

}  // namespace

TEST_CASE("CallerStore: asks, and takes what is brought") {
  CallerStore reads;
  int asked = 0, brought = 0;
  reads.on_wanted([&] { asked++; });
  reads.on_completed([&] { brought++; });
  Bytes first(10, 1), second(20, 1);
  Transfer a = read_of(first, 100), b = read_of(second, 4096);
  reads.submit(&a);
  reads.submit(&b);
  CHECK(asked == 2);
  CHECK(reads.in_flight() == 2);
  std::vector<CallerRequest> wanted = reads.take();
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0].offset == 100);
  CHECK(wanted[0].length == 10);
  CHECK(wanted[1].offset == 4096);
  CHECK(reads.take().empty());

  Bytes content(20, 7);
  reads.complete_read(wanted[1].id, content.data(), 20);
  CHECK(brought == 1);
  CHECK((second == content));
  reads.fail(wanted[0].id, EIO);
  std::vector<Transfer*> done;
  reads.collect(done);
  REQUIRE(done.size() == 2);
  CHECK(done[0] == &b);
  CHECK(b.done == 20);
  CHECK(b.error == 0);
  CHECK(a.error == EIO);
  CHECK(reads.in_flight() == 0);
}

TEST_CASE("CallerStore: too few or too many bytes are none, and what nobody wants is dropped") {
  CallerStore reads;
  reads.on_wanted([] {});
  reads.on_completed([] {});
  Bytes memory(10, 1), content(11, 9);
  for (size_t size : {9, 11}) {
    Transfer transfer = read_of(memory, 0);
    reads.submit(&transfer);
    reads.complete_read(reads.take()[0].id, content.data(), size);
    CHECK(transfer.error == EIO);
    std::vector<Transfer*> done;
    reads.collect(done);
  }
  Transfer late = read_of(memory, 0);
  reads.submit(&late);
  uint64_t id = reads.take()[0].id;
  reads.close();
  reads.complete_read(id, content.data(), 10);
  reads.fail(12345, EIO);
  CHECK((memory == Bytes(10, 1)));
  CHECK(reads.in_flight() == 0);
}

TEST_CASE("CallerStore: writes are handed out a few at a time, with their bytes") {
  CallerStore writes(2);
  int asked = 0;
  writes.on_wanted([&] { asked++; });
  writes.on_completed([] {});
  Bytes content = random_bytes(300, 5);
  Transfer first{.op = Op::kWrite, .offset = 7, .iov = {iovec_of(content)}};
  Transfer zeroes{.op = Op::kZero, .offset = 1000, .length = 1 << 30};
  Transfer flush{.op = Op::kSync};
  for (Transfer* transfer : {&first, &zeroes, &flush}) writes.submit(transfer);
  CHECK(asked == 3);
  std::vector<CallerRequest> wanted = writes.take();
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0].op == Op::kWrite);
  CHECK(wanted[0].length == 300);
  CHECK(wanted[1].op == Op::kZero);
  CHECK(wanted[1].length == 1 << 30);
  CHECK(writes.take().empty());
  Bytes copied(300);
  CHECK(writes.copy_bytes(wanted[0].id, copied.data()));
  CHECK(copied == content);

  writes.complete(wanted[0].id);
  CHECK(!writes.copy_bytes(wanted[0].id, copied.data()));
  std::vector<Transfer*> done;
  writes.collect(done);
  CHECK(done == std::vector<Transfer*>{&first});
  CHECK(first.done == 300);
  CHECK(asked == 4);
  wanted = writes.take();
  REQUIRE(wanted.size() == 1);
  CHECK(wanted[0].op == Op::kSync);
  CHECK(writes.in_flight() == 2);
}

TEST_CASE("CallerStore: the bytes of a write are not touched once it is closed") {
  CallerStore writes;
  writes.on_wanted([] {});
  Bytes content(10, 3), copied(10, 1);
  Transfer write{.op = Op::kWrite, .iov = {iovec_of(content)}};
  writes.submit(&write);
  uint64_t id = writes.take()[0].id;
  writes.close();
  CHECK(!writes.copy_bytes(id, copied.data()));
  CHECK(copied == Bytes(10, 1));
}

TEST_CASE("CopyJob: what the caller writes by itself, with zeroes and without") {
  for (bool can_zero : {false, true}) {
    Plan plan({.size = 3 << 20, .unit = 4096, .runs = 40, .seed = 52});
    const TempFile unused;
    CopySpec spec = plan.spec(unused);
    auto requests = std::make_shared<CallerStore>(3);
    spec.target = RawTarget{CallerTarget{requests, can_zero}};
    Copy copy(spec);
    copy.start();
    copy.push(plan.rows(), plan.rows().size());
    copy.job().close();
    // What was never written is not zero here.
    Bytes disk(plan.expected().size(), 0xee);
    size_t zeroes = 0, flushes = 0, since_flush = 0;
    while (!copy.job().ended()) {
      std::vector<CallerRequest> wanted = requests->take();
      CHECK(wanted.size() <= 3);
      for (const CallerRequest& request : wanted) {
        auto at = disk.begin() + static_cast<ptrdiff_t>(request.offset);
        since_flush++;
        if (request.op == Op::kWrite) {
          REQUIRE(request.offset + request.length <= disk.size());
          CHECK(requests->copy_bytes(request.id, &*at));
        } else if (request.op == Op::kZero) {
          zeroes++;
          REQUIRE(request.offset + request.length <= disk.size());
          std::fill_n(at, request.length, uint8_t{0});
        } else {
          flushes++;
          since_flush = 0;
        }
        requests->complete(request.id);
      }
      std::this_thread::yield();
    }
    CHECK(copy.wait().message == "");
    CHECK((disk == plan.expected()));
    CHECK((zeroes > 0) == can_zero);
    CHECK(flushes > 0);
    CHECK(since_flush == 0);
  }
}

TEST_CASE("CopyJob: a write of the caller's that fails ends the copy") {
  Plan plan({.size = 1 << 20, .seed = 53});
  const TempFile unused;
  CopySpec spec = plan.spec(unused);
  auto requests = std::make_shared<CallerStore>();
  spec.target = RawTarget{CallerTarget{requests}};
  Copy copy(spec);
  copy.start();
  copy.push(plan.rows(), plan.rows().size());
  copy.job().close();
  while (!copy.job().ended()) {
    for (const CallerRequest& request : requests->take()) requests->fail(request.id, EIO);
    std::this_thread::yield();
  }
  Outcome outcome = copy.wait();
  CHECK(outcome.failure == Failure::kWrite);
  CHECK(outcome.errnum == EIO);
  CHECK(requests->in_flight() == 0);
}

TEST_CASE("CopyJob: the caller's own reads, in any order") {
  constexpr uint64_t kSize = 5 << 20;
  Bytes disk = text_bytes(kSize, 51);
  std::fill_n(disk.begin() + (1 << 20), 300000, uint8_t{0});
  const TempFile target;
  CopySpec spec;
  spec.sources = {{std::make_shared<CallerStore>(), kSize}};
  spec.target = RawTarget{FileStore{target.fd()}};
  spec.size = kSize;
  spec.memory = 64 << 20;
  Copy copy(spec);
  copy.start();
  copy.push({{.kind = RowKind::kData, .start = 0, .length = kSize}}, 1);
  copy.job().close();
  std::vector<CallerRequest> wanted;
  while (!copy.job().ended()) {
    for (const CallerRequest& read : copy.job().caller_source()->take()) wanted.push_back(read);
    if (wanted.empty()) continue;
    CallerRequest last = wanted.back();
    wanted.pop_back();
    copy.job().caller_source()->complete_read(last.id, disk.data() + last.offset, last.length);
  }
  CHECK(copy.wait().message == "");
  CHECK((target.read(0, kSize) == disk));
}
