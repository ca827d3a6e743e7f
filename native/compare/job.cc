#include "compare/job.h"

#include <cerrno>
#include <utility>

#include "base/job_thread.h"
#include "compare/pipeline.h"
#include "copy/ends.h"
#include "copy/error.h"

namespace qb {

namespace {

// Pushes that may wait: one being consumed, one ready, so that the plan is never waited for.
constexpr size_t kInbox = 2;

// Findings that may wait to be taken: at most what two chunks hold in the worst case beyond it.
constexpr size_t kMaxFindings = 8192;

}  // namespace

CompareJob::CompareJob(const CompareSpec& spec,
                       std::unique_ptr<Engine> (*make)(EngineKind, unsigned))
    : spec_(spec), make_engine_(make), files_(open_files(spec.sources, spec.direct)) {}

CompareJob::~CompareJob() {
  cancel();
  join();
}

void CompareJob::join() {
  if (thread_.joinable()) thread_.join();
}

void CompareJob::start(std::function<void()> changed) {
  changed_ = std::move(changed);
  thread_ = start_thread([this] { run(); });
}

void CompareJob::wake() {
  std::lock_guard lock(mutex_);
  if (engine_) engine_->wake();
}

void CompareJob::push(std::vector<RowPair> pairs) {
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    inbox_.push_back(std::move(pairs));
  }
  wake();
}

bool CompareJob::has_room() const {
  std::lock_guard lock(mutex_);
  return inbox_.size() < kInbox;
}

void CompareJob::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake();
}

void CompareJob::cancel() {
  cancelled_ = true;
  wake();
}

std::vector<Finding> CompareJob::take_findings() {
  std::vector<Finding> taken;
  {
    std::lock_guard lock(mutex_);
    taken.swap(findings_);
  }
  if (taken.size() >= kMaxFindings) wake();
  return taken;
}

CompareJob::Inbox CompareJob::take(std::vector<RowPair>& pairs) {
  {
    std::lock_guard lock(mutex_);
    if (inbox_.empty()) return closed_ ? Inbox::kClosed : Inbox::kNothingYet;
    pairs = std::move(inbox_.front());
    inbox_.pop_front();
  }
  changed_();
  return Inbox::kPairs;
}

bool CompareJob::may_find() const {
  std::lock_guard lock(mutex_);
  return findings_.size() < kMaxFindings;
}

void CompareJob::found(const std::vector<Finding>& findings, uint64_t position) {
  {
    std::lock_guard lock(mutex_);
    for (const Finding& finding : findings) add_finding(findings_, finding);
    position_ = position;
  }
  changed_();
}

void CompareJob::check_cancelled() const {
  if (cancelled_) throw CopyError(Failure::kCancelled, ECANCELED, "compare");
}

void CompareJob::run() noexcept {
  begin_job_thread("qcow2-compare");
  try {
    auto engine = make_engine_(spec_.engine, spec_.requests);
    engine_name_ = engine->name();
    {
      std::lock_guard lock(mutex_);
      engine_ = std::move(engine);
    }
    ComparePipeline(*this, *engine_).run();
  } catch (...) {
    failure_ = std::current_exception();
  }
  files_.clear();
  {
    std::lock_guard lock(mutex_);
    engine_.reset();
    inbox_.clear();
    ended_ = true;
  }
  changed_();
}

}  // namespace qb
