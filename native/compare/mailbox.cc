#include "compare/mailbox.h"

namespace qb {

namespace {

// Findings that may wait to be taken; exceeded at most by those of two chunks.
constexpr size_t kMaxFindings = 8192;

}  // namespace

std::vector<Finding> CompareMailbox::take_findings() {
  std::vector<Finding> taken;
  {
    std::lock_guard lock(mutex_);
    taken.swap(findings_);
  }
  if (taken.size() >= kMaxFindings) wake();
  return taken;
}

bool CompareMailbox::may_find() const {
  std::lock_guard lock(mutex_);
  return findings_.size() < kMaxFindings;
}

void CompareMailbox::found(const std::vector<Finding>& findings, uint64_t position) {
  {
    std::lock_guard lock(mutex_);
    for (const Finding& finding : findings) add_finding(findings_, finding);
    position_ = position;
  }
  notify();
}

}  // namespace qb
