#include "copy/mailbox.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "io/make_engine.h"
#include "support/wrapped_engine.h"

using namespace qb;
using namespace qb::test;

namespace {

class WakeCounter final : public WrappedEngine {
 public:
  WakeCounter() : WrappedEngine(make_engine(EngineKind::kThreads, 1)) {}
  void wake() override { wakes++; }
  size_t wakes = 0;
};

std::vector<Row> rows_from(uint64_t start) {
  return {{.kind = RowKind::kZero, .start = start, .length = 512}};
}

// A mailbox between a test that is both sides, and how often either was told of news.
struct MailboxFixture {
  MailboxFixture() {
    mailbox.on_change([this] { changes++; });
    mailbox.set_engine(&engine);
  }
  // The start of the rows that come next; nothing if none do.
  std::optional<uint64_t> next() {
    std::vector<Row> rows;
    last = mailbox.take(rows);
    if (last != CopyMailbox::Inbox::kItems) return std::nullopt;
    return rows.front().start;
  }

  WakeCounter engine;
  CopyMailbox mailbox;
  CopyMailbox::Inbox last = CopyMailbox::Inbox::kNothingYet;
  size_t changes = 0;
};

}  // namespace

TEST_CASE_FIXTURE(MailboxFixture,
                  "CopyMailbox: rows come out in order, then that none come any more") {
  mailbox.push(rows_from(1));
  mailbox.push(rows_from(2));
  CHECK(engine.wakes == 2);
  CHECK(next() == 1);
  CHECK(next() == 2);
  CHECK(!next());
  CHECK(last == CopyMailbox::Inbox::kNothingYet);
  mailbox.push(rows_from(3));
  mailbox.close();
  CHECK(engine.wakes == 4);
  CHECK(next() == 3);
  CHECK(!next());
  CHECK(last == CopyMailbox::Inbox::kClosed);
}

TEST_CASE_FIXTURE(MailboxFixture,
                  "CopyMailbox: two pushes fill it, and each that is taken is told") {
  CHECK(mailbox.has_room());
  mailbox.push(rows_from(1));
  CHECK(mailbox.has_room());
  mailbox.push(rows_from(2));
  CHECK(!mailbox.has_room());
  CHECK(changes == 0);
  next();
  CHECK(mailbox.has_room());
  CHECK(changes == 1);
}

TEST_CASE_FIXTURE(MailboxFixture,
                  "CopyMailbox: commands wake the copy and come in the order of posting") {
  mailbox.post({CopyCommand::Kind::kRetry, 7});
  mailbox.post({CopyCommand::Kind::kSync});
  mailbox.post({CopyCommand::Kind::kGiveUp, 9});
  CHECK(engine.wakes == 3);
  std::vector<CopyCommand> commands = mailbox.take_commands();
  REQUIRE(commands.size() == 3);
  CHECK(commands[0].kind == CopyCommand::Kind::kRetry);
  CHECK(commands[0].start == 7);
  CHECK(commands[1].kind == CopyCommand::Kind::kSync);
  CHECK(commands[2].kind == CopyCommand::Kind::kGiveUp);
  CHECK(commands[2].start == 9);
  CHECK(mailbox.take_commands().empty());
}

TEST_CASE_FIXTURE(MailboxFixture, "CopyMailbox: what failed and what is durable is told once") {
  CHECK(mailbox.take_failed().empty());
  CHECK(!mailbox.take_synced());
  mailbox.report_failed({512, 1024});
  mailbox.report_failed({4096, 512});
  mailbox.report_synced(100);
  mailbox.report_synced(200);
  CHECK(changes == 4);
  std::vector<Area> failed = mailbox.take_failed();
  REQUIRE(failed.size() == 2);
  CHECK(failed[0].start == 512);
  CHECK(failed[1].length == 512);
  CHECK(mailbox.take_failed().empty());
  CHECK(mailbox.take_synced() == 200);
  CHECK(!mailbox.take_synced());
}

TEST_CASE_FIXTURE(MailboxFixture, "CopyMailbox: once cancelled it says so") {
  CHECK_NOTHROW(mailbox.check_cancelled());
  mailbox.cancel();
  CHECK(engine.wakes == 1);
  try {
    mailbox.check_cancelled();
    FAIL("not cancelled");
  } catch (const CopyError& error) {
    CHECK(error.failure() == Failure::kCancelled);
    CHECK(error.errnum() == ECANCELED);
  }
}

TEST_CASE_FIXTURE(MailboxFixture,
                  "CopyMailbox: after the end nothing is kept, and nobody is woken") {
  mailbox.push(rows_from(1));
  mailbox.set_engine(nullptr);
  mailbox.end();
  CHECK(mailbox.ended());
  CHECK(changes == 1);
  mailbox.push(rows_from(2));
  mailbox.post({CopyCommand::Kind::kSync});
  CHECK(engine.wakes == 1);
  CHECK(!next());
  CHECK(mailbox.has_room());
}

TEST_CASE_FIXTURE(MailboxFixture, "CopyMailbox: threads on both sides lose nothing between them") {
  constexpr uint64_t kMany = 2000;
  std::atomic<size_t> failed = 0;
  std::thread copy([&] {
    uint64_t expected = 0, commands = 0;
    while (expected < kMany || commands < kMany) {
      if (std::optional<uint64_t> start = next()) {
        CHECK(*start == expected++);
        mailbox.report_failed({*start, 512});
      }
      commands += mailbox.take_commands().size();
      std::this_thread::yield();
    }
  });
  std::thread commander([&] {
    for (uint64_t i = 0; i < kMany; i++) mailbox.post({CopyCommand::Kind::kRetry, i});
  });
  std::thread watcher([&] {
    while (failed < kMany) {
      failed += mailbox.take_failed().size();
      std::this_thread::yield();
    }
  });
  for (uint64_t i = 0; i < kMany; i++) {
    while (!mailbox.has_room()) std::this_thread::yield();
    mailbox.push(rows_from(i));
  }
  commander.join();
  copy.join();
  watcher.join();
  CHECK(failed == kMany);
}
