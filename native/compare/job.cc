#include "compare/job.h"

#include <utility>

#include "base/job_thread.h"
#include "compare/pipeline.h"
#include "copy/endpoints.h"

namespace qb {

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
  mailbox_.on_change(std::move(changed));
  thread_ = start_thread([this] { run(); });
}

void CompareJob::run() noexcept {
  begin_job_thread("qcow2-compare");
  std::unique_ptr<Engine> engine;
  try {
    engine = make_engine_(spec_.engine, spec_.requests);
    engine_name_ = engine->name();
    mailbox_.set_engine(engine.get());
    ComparePipeline(spec_, files_, mailbox_, *engine).run();
  } catch (...) {
    failure_ = std::current_exception();
  }
  mailbox_.set_engine(nullptr);
  // The end of the job is reported after its descriptors and threads are gone.
  engine.reset();
  files_.clear();
  mailbox_.end();
}

}  // namespace qb
