#include "copy/file_sink.h"

#include <doctest/doctest.h>
#include <limits.h>

#include "base/error.h"
#include "io/make_engine.h"
#include "support/bytes.h"
#include "support/fault_engine.h"
#include "support/recording_engine.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kLimit = 2 << 20;

// A sink over a file, and what it asked of the engine.
struct SinkFixture {
  explicit SinkFixture(FaultEngine::Plan plan = [](size_t, const Request&) { return std::nullopt; })
      : engine(std::make_unique<FaultEngine>(make_engine(EngineKind::kThreads, 4), std::move(plan)),
               records) {}

  BufferRef bytes(size_t size, uint8_t value) {
    BufferRef buffer = pool.get(size);
    std::fill_n(buffer->data(), size, value);
    return buffer;
  }
  void put(uint64_t offset, const BufferRef& buffer, size_t size) {
    sink.put(offset, buffer->data(), size, buffer);
  }
  // Waits for all writes; returns the errno of the first that failed.
  int finish() {
    int errnum = 0;
    sink.flush();
    while (queue.in_flight() > 0) {
      std::vector<Transfer*> done;
      queue.reap(done, true);
      for (Transfer* transfer : done) {
        try {
          sink.complete(transfer);
        } catch (const Error& error) {
          if (errnum == 0) errnum = error.errnum();
        }
      }
    }
    return errnum;
  }

  const TempFile temp;
  File file{temp.fd(), true, Direct::kAuto, kPage};
  BufferPool pool;
  std::vector<RecordingEngine::Record> records;
  RecordingEngine engine;
  Queue queue{engine, 4};
  FileSink sink{file, queue};
};

}  // namespace

TEST_CASE_FIXTURE(SinkFixture, "FileSink: neighbours in the file leave as one write") {
  for (uint64_t i = 0; i < 100; i++) put(i * kPage, bytes(kPage, static_cast<uint8_t>(i)), kPage);
  CHECK(records.empty());
  CHECK(pool.in_use() == 100 * kPage);
  CHECK(finish() == 0);
  REQUIRE(records.size() == 1);
  CHECK(records[0].offset == 0);
  CHECK(records[0].length == 100 * kPage);
  CHECK(pool.in_use() == 0);
  for (uint64_t i = 0; i < 100; i++) {
    CHECK(temp.read(i * kPage, kPage) == Bytes(kPage, static_cast<uint8_t>(i)));
  }
}

TEST_CASE_FIXTURE(SinkFixture,
                  "FileSink: what is not adjacent leaves apart, in the order it came") {
  put(0, bytes(kPage, 1), kPage);
  put(2 * kPage, bytes(kPage, 2), kPage);
  put(3 * kPage, bytes(kPage, 3), kPage);
  put(kPage, bytes(kPage, 4), kPage);
  CHECK(finish() == 0);
  REQUIRE(records.size() == 3);
  CHECK(records[0].offset == 0);
  CHECK(records[1].offset == 2 * kPage);
  CHECK(records[1].length == 2 * kPage);
  CHECK(records[2].offset == kPage);
  for (auto [at, value] : {std::pair{0, 1}, {1, 4}, {2, 2}, {3, 3}}) {
    CHECK(temp.read(at * kPage, kPage) == Bytes(kPage, static_cast<uint8_t>(value)));
  }
}

TEST_CASE_FIXTURE(SinkFixture, "FileSink: pieces of one memory become one piece") {
  BufferRef buffer = bytes(8 * kPage, 1);
  for (size_t i = 0; i < 8; i++) buffer->data()[i * kPage] = static_cast<uint8_t>(i);
  for (size_t i = 0; i < 8; i++) sink.put(i * kPage, buffer->data() + i * kPage, kPage, buffer);
  CHECK(finish() == 0);
  CHECK(records.size() == 1);
  CHECK(temp.read(0, 8 * kPage) == Bytes(buffer->data(), buffer->data() + 8 * kPage));
}

TEST_CASE_FIXTURE(SinkFixture, "FileSink: a write is handed over when it is large enough") {
  constexpr size_t kPiece = 256 << 10;
  for (uint64_t i = 0; i < 20; i++) put(i * kPiece, bytes(kPiece, 7), kPiece);
  CHECK(records.size() == 20 * kPiece / kLimit);
  CHECK(finish() == 0);
  uint64_t end = 0;
  for (const RecordingEngine::Record& record : records) {
    CHECK(record.offset == end);
    CHECK(record.length <= kLimit);
    end += record.length;
  }
  CHECK(end == 20 * kPiece);
}

TEST_CASE_FIXTURE(SinkFixture, "FileSink: no more pieces than one request takes") {
  const size_t pieces = 2 * IOV_MAX + 10, piece = 512;
  File buffered(temp.fd(), true, Direct::kOff, kPage);
  FileSink small(buffered, queue);
  std::vector<BufferRef> held;
  for (size_t i = 0; i < pieces; i++) {
    held.push_back(bytes(piece, static_cast<uint8_t>(i)));
    small.put(i * piece, held.back()->data(), piece, held.back());
  }
  small.flush();
  // Three that may be under way together, not one that the queue has to cut.
  CHECK(queue.in_flight() == 3);
  CHECK(finish() == 0);
  REQUIRE(records.size() == 3);
  CHECK(records[0].length == IOV_MAX * piece);
  for (size_t i = 0; i < pieces; i++) {
    CHECK(temp.read(i * piece, piece) == Bytes(piece, static_cast<uint8_t>(i)));
  }
}

TEST_CASE_FIXTURE(SinkFixture, "FileSink: nothing to flush is no write") {
  sink.flush();
  CHECK(queue.in_flight() == 0);
}

TEST_CASE_FIXTURE(SinkFixture, "FileSink: what is never flushed gives its memory back") {
  FileSink other(file, queue);
  BufferRef buffer = bytes(kPage, 1);
  other.put(0, buffer->data(), kPage, buffer);
}

TEST_CASE("FileSink: a failed write is told with its errno, and its memory goes all the same") {
  SinkFixture fixture(FaultEngine::nth(1, {.errnum = ENOSPC}));
  for (uint64_t i = 0; i < 4; i++) fixture.put(2 * i * kPage, fixture.bytes(kPage, 1), kPage);
  CHECK(fixture.finish() == ENOSPC);
  CHECK(fixture.records.size() == 4);
  CHECK(fixture.pool.in_use() == 0);
}

TEST_CASE("FileSink: a write that the kernel cuts goes on") {
  SinkFixture fixture(FaultEngine::nth(0, {.bytes = 3 * kPage}));
  for (uint64_t i = 0; i < 10; i++) {
    fixture.put(i * kPage, fixture.bytes(kPage, static_cast<uint8_t>(i)), kPage);
  }
  CHECK(fixture.finish() == 0);
  CHECK(fixture.records.size() == 2);
  for (uint64_t i = 0; i < 10; i++) {
    CHECK(fixture.temp.read(i * kPage, kPage) == Bytes(kPage, static_cast<uint8_t>(i)));
  }
}
