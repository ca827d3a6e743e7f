#include "copy/job.h"

#include <cerrno>
#include <utility>

#include "base/buffer.h"
#include "base/job_thread.h"
#include "copy/ends.h"
#include "copy/error.h"
#include "copy/pipeline.h"

namespace qb {

namespace {

// Pushes that may wait: one being consumed, one ready, so that the plan is never waited for.
constexpr size_t kInbox = 2;

}  // namespace

CopyJob::CopyJob(const CopySpec& spec, std::unique_ptr<Engine> (*make)(EngineKind, unsigned))
    : spec_(spec),
      make_engine_(make),
      sources_(open_files(spec.sources, spec.direct)),
      target_(open_target(spec)) {
  if (!caller()) return;
  caller()->on_asked([this] { changed_(); });
  caller()->on_brought([this] { wake(); });
}

CopyJob::~CopyJob() {
  cancel();
  join();
}

void CopyJob::join() {
  if (thread_.joinable()) thread_.join();
}

void CopyJob::start(std::function<void()> changed) {
  changed_ = std::move(changed);
  thread_ = start_thread([this] { run(); });
}

void CopyJob::wake() {
  std::lock_guard lock(mutex_);
  if (engine_) engine_->wake();
}

void CopyJob::push(std::vector<Row> rows) {
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    inbox_.push_back(std::move(rows));
  }
  wake();
}

bool CopyJob::has_room() const {
  std::lock_guard lock(mutex_);
  return inbox_.size() < kInbox;
}

void CopyJob::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake();
}

void CopyJob::cancel() {
  cancelled_ = true;
  wake();
}

CallerReads* CopyJob::caller() const {
  for (const CopySource& source : spec_.sources) {
    if (const auto* reads = std::get_if<std::shared_ptr<CallerReads>>(&source.store)) {
      return reads->get();
    }
  }
  return nullptr;
}

void CopyJob::give(Order order) {
  {
    std::lock_guard lock(mutex_);
    orders_.push_back(order);
  }
  wake();
}

std::vector<CopyJob::Order> CopyJob::take_orders() {
  std::lock_guard lock(mutex_);
  return std::exchange(orders_, {});
}

void CopyJob::retry(uint64_t start) {
  give({Order::Kind::kRetry, start});
}

void CopyJob::give_up(uint64_t start) {
  give({Order::Kind::kGiveUp, start});
}

void CopyJob::sync() {
  give({Order::Kind::kSync});
}

void CopyJob::failed(const Area& area) {
  {
    std::lock_guard lock(mutex_);
    failed_.push_back(area);
  }
  changed_();
}

std::vector<Area> CopyJob::take_failed() {
  std::lock_guard lock(mutex_);
  return std::exchange(failed_, {});
}

void CopyJob::synced(uint64_t position) {
  {
    std::lock_guard lock(mutex_);
    synced_ = position;
  }
  changed_();
}

std::optional<uint64_t> CopyJob::take_synced() {
  std::lock_guard lock(mutex_);
  return std::exchange(synced_, std::nullopt);
}

CopyCounters CopyJob::counters() const {
  return {data_, zero_, unchanged_, position_, read_};
}

CopyJob::Inbox CopyJob::take(std::vector<Row>& rows) {
  {
    std::lock_guard lock(mutex_);
    if (inbox_.empty()) return closed_ ? Inbox::kClosed : Inbox::kNothingYet;
    rows = std::move(inbox_.front());
    inbox_.pop_front();
  }
  changed_();
  return Inbox::kRows;
}

void CopyJob::check_cancelled() const {
  if (cancelled_) throw CopyError(Failure::kCancelled, ECANCELED, "copy");
}

void CopyJob::run() noexcept {
  begin_job_thread("qcow2-copy");
  try {
    auto engine = make_engine_(spec_.engine, Pipeline::engine_depth(spec_));
    engine_name_ = engine->name();
    {
      std::lock_guard lock(mutex_);
      engine_ = std::move(engine);
    }
    Pipeline(*this, *engine_).run();
  } catch (...) {
    failure_ = std::current_exception();
  }
  // Now, not when whoever holds the job lets go of it, which may be never: a file without a name
  // takes its room as long as it is open.
  sources_.clear();
  if (target_) target_->close();
  {
    std::lock_guard lock(mutex_);
    engine_.reset();
    inbox_.clear();
    ended_ = true;
  }
  changed_();
}

}  // namespace qb
