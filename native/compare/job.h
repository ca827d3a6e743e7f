// One comparison of the content of two disks, on a thread of its own:
//
//   pairs → chunks → Fetcher (reads of both sides) → examine_pairs → findings, in guest order
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/file.h"
#include "compare/finding.h"
#include "compare/row_pair.h"
#include "copy/job.h"
#include "io/engine.h"

namespace qb {

struct CompareSpec {
  // Of both sides; rows name them by index. No caller's reads.
  std::vector<CopySource> sources;
  EngineKind engine = EngineKind::kAuto;
  Direct direct = Direct::kAuto;
  unsigned requests = 32;    // reads in flight
  uint64_t memory = 0;       // bytes that the reads take
  uint64_t granularity = 0;  // bytes of a finding, see examine_pairs(); 0: it ends with the first
};

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
  // More of the plan: pairs in guest order, what lies between them is not looked at. Ignored once
  // the job has ended.
  void push(std::vector<RowPair> pairs);
  // True while the job is not more than a few pushes behind.
  bool has_room() const;
  // No more pairs come: the job ends when all of them are compared.
  void close();
  // The job ends as soon as what is with the kernel has come back.
  void cancel();
  // Findings since it was called last, in guest order. The job waits while many are not taken.
  std::vector<Finding> take_findings();
  // Guest bytes from 0 on of which every finding could be taken. Never in front of a finding that
  // take_findings() will bring later.
  uint64_t position() const { return position_; }
  // Bytes read from the sources.
  uint64_t bytes_read() const { return read_; }
  bool ended() const { return ended_; }
  // Waits for the thread.
  void join();
  // REQUIRES: ended(). Why it failed; null: all pairs up to the first finding, or all of them, are
  // compared.
  std::exception_ptr failure() const { return failure_; }
  // REQUIRES: ended().
  const char* engine_name() const { return engine_name_; }

 private:
  friend class ComparePipeline;
  enum class Inbox { kPairs, kNothingYet, kClosed };
  Inbox take(std::vector<RowPair>& pairs);
  bool may_find() const;
  void found(const std::vector<Finding>& findings, uint64_t position);
  void check_cancelled() const;
  void run() noexcept;
  void wake();

  CompareSpec spec_;
  std::unique_ptr<Engine> (*make_engine_)(EngineKind, unsigned);
  std::vector<std::optional<File>> files_;  // none for what is no file
  std::function<void()> changed_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards all down to the engine
  std::deque<std::vector<RowPair>> inbox_;
  std::vector<Finding> findings_;
  bool closed_ = false;
  std::unique_ptr<Engine> engine_;

  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> ended_ = false;
  std::exception_ptr failure_;
  const char* engine_name_ = "";
  std::atomic<uint64_t> position_ = 0, read_ = 0;
};

}  // namespace qb
