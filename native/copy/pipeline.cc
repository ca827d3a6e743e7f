#include "copy/pipeline.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "copy/error.h"
#include "copy/examine.h"
#include "image/raw_writer.h"

namespace qb {

namespace {

// One read: large enough that requests cost nothing beside their bytes, and memory is requests
// times it.
constexpr uint64_t kStepBytes = 1 << 20;

// Writes that may be with the kernel besides the reads. Memory bounds them long before.
constexpr unsigned kWriteSlots = 16;

// How far ahead of its rate a limited copy may read.
constexpr auto kBurst = std::chrono::milliseconds(100);

std::vector<Store> open_stores(std::vector<std::optional<File>>& files,
                               const std::vector<CopySource>& sources, Engine& engine) {
  std::vector<Store> stores;
  for (size_t i = 0; i < sources.size(); i++) {
    Store store{sources[i].size, std::move(files[i]), nullptr};
    if (sources[i].nbd) {
      store.nbd = std::make_unique<NbdReads>(*sources[i].nbd, [&engine] { engine.wake(); });
    }
    stores.push_back(std::move(store));
  }
  return stores;
}

std::unique_ptr<DiskWriter> make_writer(const CopySpec& spec, File& target, BufferPool& pool,
                                        Output& output) {
  if (spec.qcow2) return std::make_unique<Qcow2Writer>(spec.image, pool, output);
  return std::make_unique<RawWriter>(target, spec.image.size, pool, output);
}

}  // namespace

Pipeline::Pipeline(CopyJob& job, Engine& engine)
    : job_(job),
      engine_(engine),
      stores_(open_stores(job.sources_, job.spec_.sources, engine)),
      queue_(engine, job.spec_.requests + kWriteSlots),
      gather_(job.target_, queue_),
      writer_(make_writer(job.spec_, job.target_, pool_, gather_)),
      step_bytes_(std::max(kStepBytes, writer_->unit())),
      assembler_(writer_->unit(), step_bytes_, job.spec_.image.size, writer_->has_backing()),
      reader_(stores_, queue_, pool_),
      next_read_(Engine::Clock::now()),
      workers_(std::max(1u, std::thread::hardware_concurrency())) {}

void Pipeline::run() {
  try {
    copy();
  } catch (...) {
    let_go();
    throw;
  }
}

void Pipeline::copy() {
  File& target = job_.target_;
  if (target.is_device() && job_.spec_.qcow2) {
    // Whatever image was there is none from now on.
    uint64_t size = writer_->unit();
    BufferRef zeroes = pool_.get_zeroed(size);
    gather_.put(0, zeroes->data(), size, zeroes);
    drain();
    at_target([&] { target.sync_data(); });
  }
  while (true) {
    job_.check_cancelled();
    do {
      start_steps();
    } while (hand_on_ready());
    if (assembler_.complete() && rows_closed_ && chunks_.empty()) break;
    // What is held back would wait for ever for its neighbours if nothing else is under way.
    if (reading_ == 0 && queue_.in_flight() == 0 && preparing_ == 0) gather_.flush();
    turn();
  }
  writer_->finish();
  drain();
  at_target([&] {
    target.set_length(writer_->file_length());
    target.sync_data();
  });
  job_.check_cancelled();
  writer_->header();
  drain();
}

// Waits for whatever comes next and handles it.
void Pipeline::turn() {
  bool limited = job_.spec_.rate_limit > 0 && next_read_ > Engine::Clock::now() + kBurst;
  auto deadline = limited ? std::optional(next_read_ - kBurst) : std::nullopt;
  queue_.reap(done_, true, deadline);
  for (Store& store : stores_) {
    if (store.nbd) store.nbd->collect(done_);
  }
  while (!done_.empty()) {
    // Taken out first: what a failure leaves in there is for let_go().
    Transfer* transfer = done_.back();
    done_.pop_back();
    handle(transfer);
  }
  collect_prepared();
}

void Pipeline::handle(Transfer* transfer) {
  if (transfer->op == Op::kWrite) {
    gather_.complete(transfer);
    return;
  }
  Chunk* chunk = reader_.complete(transfer);
  if (!chunk) return;
  reading_--;
  bool heavy = job_.spec_.compress || std::any_of(chunk->step.rows.begin(), chunk->step.rows.end(),
                                                  [](const Row& row) { return row.compressed(); });
  if (heavy) {
    prepare_on_worker(*chunk);
  } else {
    prepare(*chunk);
    chunk->ready = true;
  }
}

bool Pipeline::may_read() {
  if (reading_ >= job_.spec_.requests) return false;
  if (pool_.in_use() + step_bytes_ > job_.spec_.memory && !chunks_.empty()) return false;
  return job_.spec_.rate_limit == 0 || next_read_ <= Engine::Clock::now() + kBurst;
}

void Pipeline::start_steps() {
  while (may_read()) {
    std::optional<Step> step = next_step();
    if (!step) return;
    start(std::move(*step));
  }
}

// The next step of the plan, or nothing until more rows come.
std::optional<Step> Pipeline::next_step() {
  while (true) {
    if (std::optional<Step> step = assembler_.next()) return step;
    if (rows_closed_) return std::nullopt;
    std::vector<Row> rows;
    switch (job_.take(rows)) {
      case CopyJob::Inbox::kRows:
        assembler_.feed(rows);
        break;
      case CopyJob::Inbox::kNothingYet:
        return std::nullopt;
      case CopyJob::Inbox::kClosed:
        rows_closed_ = true;
        if (!assembler_.complete()) throw Error(EINVAL, "end of the plan");
        return std::nullopt;
    }
  }
}

void Pipeline::start(Step step) {
  auto chunk = std::make_unique<Chunk>();
  chunk->step = std::move(step);
  Chunk& started = *chunk;
  chunks_.push_back(std::move(chunk));
  if (started.step.kind != Step::Kind::kData) {
    started.ready = true;
    return;
  }
  reading_++;
  reader_.start(started, writer_->unit());
  uint64_t bytes = started.step.length;
  job_.read_ += bytes;
  if (job_.spec_.rate_limit > 0) {
    auto cost = std::chrono::duration<double>(static_cast<double>(bytes) /
                                              static_cast<double>(job_.spec_.rate_limit));
    next_read_ = std::max(next_read_, Engine::Clock::now()) +
                 std::chrono::duration_cast<Engine::Clock::duration>(cost);
  }
}

std::unique_ptr<Compressor> Pipeline::borrow_compressor() {
  if (!job_.spec_.compress) return nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!compressors_.empty()) {
      auto compressor = std::move(compressors_.back());
      compressors_.pop_back();
      return compressor;
    }
  }
  Compression type = job_.spec_.image.compression == CompressionType::kZstd ? Compression::kZstd
                                                                            : Compression::kDeflate;
  return make_compressor(type, job_.spec_.level);
}

void Pipeline::prepare(Chunk& chunk) {
  Reader::expand(chunk, pool_);
  auto compressor = borrow_compressor();
  examine(chunk, writer_->unit(), compressor.get(), writer_->compressed_limit(), pool_);
  if (!compressor) return;
  std::lock_guard lock(mutex_);
  compressors_.push_back(std::move(compressor));
}

void Pipeline::prepare_on_worker(Chunk& chunk) {
  preparing_++;
  workers_.submit([this, &chunk] {
    std::exception_ptr failure;
    try {
      prepare(chunk);
    } catch (...) {
      failure = std::current_exception();
    }
    {
      std::lock_guard lock(mutex_);
      if (failure && !worker_failure_) worker_failure_ = failure;
      prepared_.push_back(&chunk);
    }
    engine_.wake();
  });
}

void Pipeline::collect_prepared() {
  std::lock_guard lock(mutex_);
  preparing_ -= prepared_.size();
  for (Chunk* chunk : prepared_) chunk->ready = true;
  prepared_.clear();
  if (worker_failure_) std::rethrow_exception(worker_failure_);
}

// True if that made room for more.
bool Pipeline::hand_on_ready() {
  bool any = false;
  while (!chunks_.empty() && chunks_.front()->ready) {
    any = true;
    hand_on(*chunks_.front());
    count(*chunks_.front());
    chunks_.pop_front();
  }
  return any;
}

void Pipeline::hand_on(Chunk& chunk) {
  switch (chunk.step.kind) {
    case Step::Kind::kSkip:
      writer_->skip(chunk.step.length);
      return;
    case Step::Kind::kZero:
      writer_->zero(chunk.step.length);
      return;
    case Step::Kind::kData:
      break;
  }
  uint64_t unit = writer_->unit();
  for (size_t i = 0; i < chunk.units.size();) {
    uint32_t kind = chunk.units[i];
    if (kind != 0 && kind != Chunk::kStored) {
      writer_->compressed(chunk.streams->data() + i * unit, kind);
      i++;
      continue;
    }
    size_t end = i;
    while (end < chunk.units.size() && chunk.units[end] == kind) end++;
    uint64_t length = (end - i) * unit;
    if (kind == 0) {
      writer_->zero(length);
    } else {
      writer_->data(chunk.buffer->data() + i * unit, length, chunk.buffer);
    }
    i = end;
  }
}

void Pipeline::count(const Chunk& chunk) {
  uint64_t zero = 0;
  if (chunk.step.kind == Step::Kind::kSkip && writer_->has_backing()) {
    job_.unchanged_ += chunk.step.length;
  } else if (chunk.step.kind != Step::Kind::kData) {
    zero = chunk.step.length;
  } else {
    uint64_t unit = writer_->unit();
    for (size_t i = 0; i < chunk.units.size(); i++) {
      if (chunk.units[i] == 0) zero += std::min(unit, chunk.step.length - i * unit);
    }
    job_.data_ += chunk.step.length - zero;
  }
  job_.zero_ += zero;
  job_.position_ = chunk.step.start + chunk.step.length;
}

// Writes what was put, and waits for it.
void Pipeline::drain() {
  gather_.flush();
  while (queue_.in_flight() > 0) {
    job_.check_cancelled();
    turn();
  }
}

// After a failure: no buffer may be freed before the kernel and the servers are done with it.
void Pipeline::let_go() {
  stores_.clear();
  while (!done_.empty() || queue_.in_flight() > 0) {
    for (Transfer* transfer : std::exchange(done_, {})) {
      try {
        if (transfer->op == Op::kWrite) gather_.complete(transfer);
      } catch (const Error&) {
        // The first failure is the one that is told.
      }
    }
    if (queue_.in_flight() > 0) queue_.reap(done_, true);
  }
}

}  // namespace qb
