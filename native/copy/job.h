// One copy from a source to a target, on a thread of its own:
//
//   rows → Assembler → steps → Reader → chunks → examine (zero? compress) → in guest order →
//   DiskWriter → Sink
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "copy/row.h"
#include "copy/spec.h"

namespace qb {

// Guest bytes.
struct Area {
  uint64_t start;
  uint64_t length;
};

struct CopyCounters {
  uint64_t data = 0;       // guest bytes stored as data
  uint64_t zero = 0;       // guest bytes that read as zero
  uint64_t unchanged = 0;  // guest bytes left to the backing file
  uint64_t position = 0;   // guest bytes settled, from 0 on
  uint64_t read = 0;       // bytes read from the sources
};

// Thread-safety: any thread may call any method, one at a time for push() and close().
class CopyJob {
 public:
  // Opens the files again and checks the image's options; starts nothing. Throws Error.
  explicit CopyJob(const CopySpec& spec,
                   std::unique_ptr<Engine> (*make)(EngineKind, unsigned) = make_engine);
  // Cancels and waits.
  ~CopyJob();
  CopyJob(const CopyJob&) = delete;
  CopyJob& operator=(const CopyJob&) = delete;

  // Starts the thread. `changed` is called on that thread whenever has_room() or ended() may have
  // become true.
  void start(std::function<void()> changed);
  // More of the plan. Ignored once the job has ended.
  void push(std::vector<Row> rows);
  // True while the job is not more than a few pushes behind.
  bool has_room() const;
  // No more rows come: the job finishes the image and ends.
  void close();
  // The job ends as soon as what is with the kernel has come back.
  void cancel();
  // Areas that could not be read since it was called last. The copy waits for what is to be done.
  std::vector<Area> take_failed();
  // Reads the failed area that starts there again, or ends the copy with its failure.
  void retry(uint64_t start);
  void give_up(uint64_t start);
  // Makes durable what was handed to the target so far; then take_synced() has, once, up to which
  // guest byte that is.
  void sync();
  std::optional<uint64_t> take_synced();
  // What is asked of the caller, if a source is the caller's.
  CallerReads* caller() const;
  bool ended() const { return ended_; }
  // Waits for the thread.
  void join();
  // REQUIRES: ended(). Why it failed; null: the target is complete and only lacks its last sync.
  std::exception_ptr failure() const { return failure_; }

  CopyCounters counters() const;
  // REQUIRES: ended().
  const char* engine_name() const { return engine_name_; }
  // REQUIRES: ended(), no failure. The hash of the content (content_hash.h); empty if none was
  // wanted.
  const std::string& checksum() const { return checksum_; }
  bool direct() const { return target_ && target_->direct(); }

 private:
  friend class Pipeline;
  enum class Inbox { kRows, kNothingYet, kClosed };
  Inbox take(std::vector<Row>& rows);
  struct Order {
    enum class Kind { kRetry, kGiveUp, kSync } kind;
    uint64_t start = 0;
  };
  void give(Order order);
  std::vector<Order> take_orders();
  void failed(const Area& area);
  void synced(uint64_t position);
  void check_cancelled() const;
  void run() noexcept;
  void wake();

  CopySpec spec_;
  std::unique_ptr<Engine> (*make_engine_)(EngineKind, unsigned);
  std::vector<std::optional<File>> sources_;  // none for what is no file
  std::optional<File> target_;                // none for an export
  std::function<void()> changed_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards all down to the engine
  std::deque<std::vector<Row>> inbox_;
  std::vector<Order> orders_;
  std::vector<Area> failed_;
  std::optional<uint64_t> synced_;
  bool closed_ = false;
  std::unique_ptr<Engine> engine_;

  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> ended_ = false;
  std::exception_ptr failure_;
  const char* engine_name_ = "";
  std::string checksum_;
  std::atomic<uint64_t> data_ = 0, zero_ = 0, unchanged_ = 0, position_ = 0, read_ = 0;
};

}  // namespace qb
