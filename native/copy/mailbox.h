// Messages between the thread of a copy and the threads that feed and watch it.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "copy/job_mailbox.h"
#include "copy/row.h"

namespace qb {

// Guest bytes.
struct Area {
  uint64_t start;
  uint64_t length;
};

// A command to a running copy.
struct CopyCommand {
  enum class Kind : uint8_t { kRetry, kGiveUp, kSync } kind;
  uint64_t start = 0;  // of the failed area
};

// Thread-safe. Rows and commands go in; failed areas and durable positions come out.
class CopyMailbox : public JobMailbox<Row> {
 public:
  CopyMailbox() : JobMailbox("copy") {}

  // For those outside; see CopyJob.
  void post(CopyCommand command);
  std::vector<Area> take_failed();
  std::optional<uint64_t> take_synced();

  // For the copy's thread.

  // In the order in which they were posted.
  std::vector<CopyCommand> take_commands();
  void report_failed(const Area& area);
  void report_synced(uint64_t position);

 private:
  std::mutex mutex_;  // guards all below
  std::vector<CopyCommand> commands_;
  std::vector<Area> failed_;
  std::optional<uint64_t> synced_;
};

}  // namespace qb
