// Messages between the thread of a comparison and the threads that feed and watch it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "compare/finding.h"
#include "compare/row_pair.h"
#include "copy/job_mailbox.h"

namespace qb {

// Thread-safe. Pairs go in and findings come out, both in guest order and both bounded.
class CompareMailbox : public JobMailbox<RowPair> {
 public:
  CompareMailbox() : JobMailbox("compare") {}

  // For those outside; see CompareJob, which has methods of the same names.
  std::vector<Finding> take_findings();
  uint64_t position() const { return position_; }
  uint64_t bytes_read() const { return read_; }

  // For the thread of the comparison.

  // False while many findings wait to be taken.
  bool may_find() const;
  // All up to `position` is compared, and this was found there.
  void found(const std::vector<Finding>& findings, uint64_t position);
  void count_read(uint64_t bytes) { read_ += bytes; }

 private:
  mutable std::mutex mutex_;  // guards the findings
  std::vector<Finding> findings_;
  std::atomic<uint64_t> position_ = 0, read_ = 0;
};

}  // namespace qb
