// One copy from a source to a target, on a thread of its own:
//
//   rows → Assembler → steps → Reader → chunks → Preparer (zero? compress) → in guest order →
//   DiskWriter → Sink
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "copy/counters.h"
#include "copy/delivery.h"
#include "copy/endpoints.h"
#include "copy/mailbox.h"
#include "copy/row.h"
#include "copy/spec.h"
#include "io/make_engine.h"

namespace qb {

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
  // become true, or there is something to be taken. Throws Error.
  void start(std::function<void()> changed);
  // More of the plan. Ignored once the job has ended.
  void push(std::vector<Row> rows) { mailbox_.push(std::move(rows)); }
  // True while the job is not more than a few pushes behind.
  bool has_room() const { return mailbox_.has_room(); }
  // No more rows come: the job finishes the image and ends.
  void close() { mailbox_.close(); }
  // The job ends as soon as the kernel has completed the requests in flight.
  void cancel() { mailbox_.cancel(); }
  // Areas whose reads failed since the last call. The copy waits for the decision about them.
  std::vector<Area> take_failed() { return mailbox_.take_failed(); }
  // Reads the failed area that starts there again, or ends the copy with its failure.
  void retry(uint64_t start) { mailbox_.post({CopyCommand::Kind::kRetry, start}); }
  void give_up(uint64_t start) { mailbox_.post({CopyCommand::Kind::kGiveUp, start}); }
  // Syncs the target's data so far; then take_synced() has, once, up to which
  // guest byte that is.
  void sync() { mailbox_.post({CopyCommand::Kind::kSync}); }
  std::optional<uint64_t> take_synced() { return mailbox_.take_synced(); }
  // The caller's requests, if a source or the target is its own; else null.
  CallerStore* caller_source() const;
  CallerStore* caller_target() const;
  bool ended() const { return mailbox_.ended(); }
  // Waits for the thread.
  void join();
  // REQUIRES: ended(). Why it failed; null: the target is complete and only lacks its last sync.
  std::exception_ptr failure() const { return failure_; }

  CopyCounters counters() const { return counters_.now(); }
  // REQUIRES: ended().
  const char* engine_name() const { return engine_name_; }
  // REQUIRES: ended(), no failure. The hashes that were wanted (content_hash.h).
  const Checksums& checksums() const { return checksums_; }
  // For another copy to share.
  const std::shared_ptr<RateLimit>& rate() const { return spec_.shared_rate; }
  bool direct() const { return files_.target && files_.target->direct(); }

 private:
  void run() noexcept;

  CopySpec spec_;
  std::unique_ptr<Engine> (*make_engine_)(EngineKind, unsigned);
  EndpointFiles files_;
  CopyMailbox mailbox_;
  LiveCounters counters_;
  std::thread thread_;
  std::exception_ptr failure_;
  const char* engine_name_ = "";
  Checksums checksums_;
};

}  // namespace qb
