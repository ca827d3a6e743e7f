#include "source/caller_reads.h"

#include <doctest/doctest.h>

#include <cerrno>

#include "copy/copying.h"

using namespace qb;
using namespace qb::test;

namespace {

Transfer read_of(Bytes& memory, uint64_t offset) {
  return {.offset = offset, .iov = {{memory.data(), memory.size()}}};
}

}  // namespace

TEST_CASE("CallerReads: asks, and takes what is brought") {
  CallerReads reads;
  int asked = 0, brought = 0;
  reads.on_wanted([&] { asked++; });
  reads.on_completed([&] { brought++; });
  Bytes first(10, 1), second(20, 1);
  Transfer a = read_of(first, 100), b = read_of(second, 4096);
  reads.submit(&a);
  reads.submit(&b);
  CHECK(asked == 2);
  CHECK(reads.in_flight() == 2);
  std::vector<WantedRead> wanted = reads.take();
  REQUIRE(wanted.size() == 2);
  CHECK(wanted[0].offset == 100);
  CHECK(wanted[0].length == 10);
  CHECK(wanted[1].offset == 4096);
  CHECK(reads.take().empty());

  Bytes content(20, 7);
  reads.complete_read(wanted[1].id, content.data(), 20);
  CHECK(brought == 1);
  CHECK((second == content));
  reads.fail_read(wanted[0].id, EIO);
  std::vector<Transfer*> done;
  reads.collect(done);
  REQUIRE(done.size() == 2);
  CHECK(done[0] == &b);
  CHECK(b.done == 20);
  CHECK(b.error == 0);
  CHECK(a.error == EIO);
  CHECK(reads.in_flight() == 0);
}

TEST_CASE("CallerReads: too few or too many bytes are none, and what nobody wants is dropped") {
  CallerReads reads;
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
  reads.fail_read(12345, EIO);
  CHECK((memory == Bytes(10, 1)));
  CHECK(reads.in_flight() == 0);
}

TEST_CASE("CopyJob: the caller's own reads, in any order") {
  constexpr uint64_t kSize = 5 << 20;
  Bytes disk = text_bytes(kSize, 51);
  std::fill_n(disk.begin() + (1 << 20), 300000, uint8_t{0});
  const TempFile target;
  CopySpec spec;
  spec.sources = {{std::make_shared<CallerReads>(), kSize}};
  spec.target = RawTarget{FileStore{target.fd()}};
  spec.size = kSize;
  spec.memory = 64 << 20;
  Copy copy(spec);
  copy.start();
  copy.push({{.kind = RowKind::kData, .start = 0, .length = kSize}}, 1);
  copy.job().close();
  std::vector<WantedRead> wanted;
  while (!copy.job().ended()) {
    for (const WantedRead& read : copy.job().caller()->take()) wanted.push_back(read);
    if (wanted.empty()) continue;
    WantedRead last = wanted.back();
    wanted.pop_back();
    copy.job().caller()->complete_read(last.id, disk.data() + last.offset, last.length);
  }
  CHECK(copy.wait().message == "");
  CHECK((target.read(0, kSize) == disk));
}
