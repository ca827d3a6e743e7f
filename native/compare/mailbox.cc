#include "compare/mailbox.h"

#include <cerrno>
#include <utility>

#include "copy/error.h"

namespace qb {

namespace {

// Pushes that may wait: one being consumed, one ready, so that the plan is never waited for.
constexpr size_t kInbox = 2;

// Findings that may wait to be taken: at most what two chunks hold in the worst case beyond it.
constexpr size_t kMaxFindings = 8192;

}  // namespace

void CompareMailbox::wake() {
  std::lock_guard lock(mutex_);
  if (engine_) engine_->wake();
}

void CompareMailbox::push(std::vector<RowPair> pairs) {
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    inbox_.push_back(std::move(pairs));
  }
  wake();
}

bool CompareMailbox::has_room() const {
  std::lock_guard lock(mutex_);
  return inbox_.size() < kInbox;
}

void CompareMailbox::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake();
}

void CompareMailbox::cancel() {
  cancelled_ = true;
  wake();
}

std::vector<Finding> CompareMailbox::take_findings() {
  std::vector<Finding> taken;
  {
    std::lock_guard lock(mutex_);
    taken.swap(findings_);
  }
  if (taken.size() >= kMaxFindings) wake();
  return taken;
}

CompareMailbox::Inbox CompareMailbox::take(std::vector<RowPair>& pairs) {
  {
    std::lock_guard lock(mutex_);
    if (inbox_.empty()) return closed_ ? Inbox::kClosed : Inbox::kNothingYet;
    pairs = std::move(inbox_.front());
    inbox_.pop_front();
  }
  changed_();
  return Inbox::kPairs;
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
  changed_();
}

void CompareMailbox::check_cancelled() const {
  if (cancelled_) throw CopyError(Failure::kCancelled, ECANCELED, "compare");
}

void CompareMailbox::set_engine(Engine* engine) {
  std::lock_guard lock(mutex_);
  engine_ = engine;
}

void CompareMailbox::end() {
  {
    std::lock_guard lock(mutex_);
    inbox_.clear();
    ended_ = true;
  }
  changed_();
}

}  // namespace qb
