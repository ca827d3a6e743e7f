#include "copy/job.h"

#include <utility>

#include "base/job_thread.h"
#include "copy/pipeline.h"

namespace qb {

CopyJob::CopyJob(const CopySpec& spec, std::unique_ptr<Engine> (*make)(EngineKind, unsigned))
    : spec_(spec), make_engine_(make), files_(open_endpoints(spec)) {
  if (!spec_.shared_rate) {
    spec_.shared_rate = std::make_shared<RateLimit>(spec_.rate_limit, Engine::Clock::now());
  }
  for (CallerStore* store : {caller_source(), caller_target()}) {
    if (!store) continue;
    store->on_wanted([this] { mailbox_.notify(); });
    store->on_completed([this] { mailbox_.wake(); });
  }
}

CopyJob::~CopyJob() {
  cancel();
  join();
}

void CopyJob::join() {
  if (thread_.joinable()) thread_.join();
}

void CopyJob::start(std::function<void()> changed) {
  mailbox_.on_change(std::move(changed));
  thread_ = start_thread([this] { run(); });
}

CallerStore* CopyJob::caller_target() const {
  const auto* raw = std::get_if<RawTarget>(&spec_.target);
  const auto* caller = raw ? std::get_if<CallerTarget>(&raw->store) : nullptr;
  return caller ? caller->requests.get() : nullptr;
}

CallerStore* CopyJob::caller_source() const {
  for (const CopySource& source : spec_.sources) {
    if (const auto* reads = std::get_if<std::shared_ptr<CallerStore>>(&source.store)) {
      return reads->get();
    }
  }
  return nullptr;
}

void CopyJob::run() noexcept {
  begin_job_thread("qcow2-copy");
  std::unique_ptr<Engine> engine;
  try {
    engine = make_engine_(spec_.engine, Pipeline::engine_depth(spec_));
    engine_name_ = engine->name();
    mailbox_.set_engine(engine.get());
    checksums_ = Pipeline(spec_, files_, mailbox_, counters_, *engine).run();
  } catch (...) {
    failure_ = std::current_exception();
  }
  mailbox_.set_engine(nullptr);
  engine.reset();
  // Now, not when the holder of the job releases it, which may be never: a file without a name
  // takes its room as long as it is open.
  files_.close();
  mailbox_.end();
}

}  // namespace qb
