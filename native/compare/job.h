// One comparison of the content of two disks, on a thread of its own:
//
//   pairs → chunks → Fetcher (reads of both sides) → examine_pairs → findings, in guest order
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "compare/finding.h"
#include "compare/mailbox.h"
#include "compare/row_pair.h"
#include "compare/spec.h"
#include "io/make_engine.h"

namespace qb {

// Thread-safety: any thread may call any method, one at a time for push() and close().
class CompareJob {
 public:
  // Opens the files again; starts nothing. Throws Error.
  explicit CompareJob(const CompareSpec& spec,
                      std::unique_ptr<Engine> (*make)(EngineKind, unsigned) = make_engine);
  // Cancels and waits.
  ~CompareJob();
  CompareJob(const CompareJob&) = delete;
  CompareJob& operator=(const CompareJob&) = delete;

  // Starts the thread. `changed` is called on that thread whenever has_room() or ended() may have
  // become true, or take_findings() or position() have something new.
  void start(std::function<void()> changed);
  // More of the plan: pairs in guest order; the gaps between them are not read. Ignored once
  // the job has ended.
  void push(std::vector<RowPair> pairs) { mailbox_.push(std::move(pairs)); }
  // True while the job is not more than a few pushes behind.
  bool has_room() const { return mailbox_.has_room(); }
  // No more pairs come: the job ends when all of them are compared.
  void close() { mailbox_.close(); }
  // The job ends as soon as the kernel has completed the requests in flight.
  void cancel() { mailbox_.cancel(); }
  // Findings since it was called last, in guest order. The job waits while many are not taken.
  std::vector<Finding> take_findings() { return mailbox_.take_findings(); }
  // Guest bytes from 0 on of which every finding could be taken. Never in front of a finding that
  // take_findings() will return later.
  uint64_t position() const { return mailbox_.position(); }
  // Bytes read from the sources.
  uint64_t bytes_read() const { return mailbox_.bytes_read(); }
  bool ended() const { return mailbox_.ended(); }
  // Waits for the thread.
  void join();
  // REQUIRES: ended(). Why it failed; null: all pairs up to the first finding, or all of them, are
  // compared.
  std::exception_ptr failure() const { return failure_; }
  // REQUIRES: ended().
  const char* engine_name() const { return engine_name_; }

 private:
  void run() noexcept;

  CompareSpec spec_;
  std::unique_ptr<Engine> (*make_engine_)(EngineKind, unsigned);
  std::vector<std::optional<File>> files_;  // nullopt if not a file
  CompareMailbox mailbox_;
  std::thread thread_;
  std::exception_ptr failure_;
  const char* engine_name_ = "";
};

}  // namespace qb
