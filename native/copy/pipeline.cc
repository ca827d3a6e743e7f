#include "copy/pipeline.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "copy/ends.h"
#include "copy/error.h"
#include "copy/examine.h"

namespace qb {

namespace {

// One read: large enough that requests cost nothing beside their bytes, and memory is requests
// times it.
constexpr uint64_t kStepBytes = 1 << 20;

// Writes that may be with the kernel besides the reads. Memory bounds them long before.
constexpr unsigned kWriteSlots = 16;

// Writes that may be on their way to a target: where zeroes have to be sent, what they take of
// memory is not that of buffers.
constexpr size_t kMostWrites = 512;

// Steps that may be under way, and rows of theirs: as many as the reads that are allowed can need
// between them, by far. Steps without data take no buffers that would bound them.
constexpr size_t kMaxChunks = 8192;
constexpr size_t kMaxRows = 65536;

// How far ahead of its rate a limited copy may read.
constexpr auto kBurst = std::chrono::milliseconds(100);

}  // namespace

unsigned Pipeline::engine_depth(const CopySpec& spec) {
  return spec.requests + kWriteSlots;
}

Pipeline::Pipeline(CopyJob& job, Engine& engine)
    : job_(job),
      engine_(engine),
      stores_(open_stores(job.sources_, job.spec_.sources, engine)),
      queue_(engine, engine_depth(job.spec_)),
      sink_(make_sink(job.spec_.target, job.target_, queue_, engine)),
      writer_(make_writer(job.spec_, job.target_, pool_, *sink_)),
      step_bytes_(std::max(kStepBytes, writer_->unit())),
      assembler_(writer_->unit(), step_bytes_, job.spec_.size, writer_->has_backing()),
      reader_(stores_, queue_, pool_),
      next_read_(Engine::Clock::now()),
      workers_(std::max(1u, std::thread::hardware_concurrency())) {
  bool wanted = job.spec_.hash || std::holds_alternative<HashTarget>(job.spec_.target);
  if (!wanted) return;
  hash_.emplace(job.spec_.size, writer_->has_backing(), workers_, [this] { engine_.wake(); });
}

void Pipeline::run() {
  try {
    copy();
  } catch (...) {
    abandon();
    throw;
  }
}

void Pipeline::copy() {
  if (std::holds_alternative<Qcow2Target>(job_.spec_.target) && job_.target_->is_device()) {
    // Whatever image was there is none from now on.
    uint64_t size = writer_->unit();
    BufferRef zeroes = pool_.get_zeroed(size);
    sink_->put(0, zeroes->data(), size, zeroes);
    sync();
  }
  while (true) {
    job_.check_cancelled();
    follow_orders();
    do {
      start_steps();
    } while (hand_on_ready());
    if (assembler_.complete() && rows_closed_ && chunks_.empty()) break;
    // What is held back would wait for ever for its neighbours if nothing else is under way.
    if (reading_ == 0 && queue_.in_flight() == 0 && preparing_ == 0) sink_->flush();
    turn();
  }
  writer_->finish();
  if (hash_) finish_hash();
  drain();
  sink_->set_length(writer_->file_length());
  sync();
  job_.check_cancelled();
  writer_->header();
  sink_->flush();
  // Also what makes the image valid: durability is judged by this descriptor, through which all was
  // written, and by its result. The kernel reports a failed write-back once to each description of
  // an open file, and to one that was opened later perhaps never.
  if (sink_->in_flight() > 0) sync();
}

void Pipeline::finish_hash() {
  while (hash_->busy()) {
    job_.check_cancelled();
    turn();
  }
  job_.checksum_ = hash_->finish();
}

// Waits for whatever comes next and handles it.
void Pipeline::turn() {
  bool limited = job_.spec_.rate_limit > 0 && next_read_ > Engine::Clock::now() + kBurst;
  auto deadline = limited ? std::optional(next_read_ - kBurst) : std::nullopt;
  queue_.reap(done_, true, deadline);
  for (Store& store : stores_) {
    if (Remote* remote = store.remote()) remote->collect(done_);
  }
  sink_->collect(done_);
  while (!done_.empty()) {
    // Taken out first: what a failure leaves in there is for abandon().
    Transfer* transfer = done_.back();
    done_.pop_back();
    handle(transfer);
  }
  collect_prepared();
}

void Pipeline::handle(Transfer* transfer) {
  if (transfer->op != Op::kRead) {
    sink_->complete(transfer);
    return;
  }
  Chunk* chunk = reader_.complete(transfer);
  if (!chunk) return;
  if (chunk->failure) {
    reading_--;
    // It waits for what is decided, and its memory is of use to others.
    chunk->reads.clear();
    chunk->buffer.reset();
    chunk->streams.reset();
    if (!job_.spec_.hold_failures) std::rethrow_exception(chunk->failure);
    job_.failed({chunk->step.start, chunk->step.length});
    return;
  }
  if (chunk->rows_left.empty()) reading_--;
  bool heavy =
      compression_of(job_.spec_) || std::any_of(chunk->step.rows.begin(), chunk->step.rows.end(),
                                                [](const Row& row) { return row.compressed(); });
  if (heavy) {
    prepare_on_worker(*chunk);
  } else {
    prepare(*chunk);
    prepared(*chunk);
  }
}

// The bytes of a round of reads are in place: those of the next one are wanted, or there are all.
void Pipeline::prepared(Chunk& chunk) {
  if (chunk.rows_left.empty()) {
    chunk.ready = true;
    return;
  }
  reader_.plan_next(chunk);
  held_.push_back(&chunk);
}

// What the caller of the copy decided meanwhile.
void Pipeline::follow_orders() {
  for (const CopyJob::Order& order : job_.take_orders()) {
    if (order.kind == CopyJob::Order::Kind::kSync) {
      uint64_t settled = writer_->settled();
      sync();
      job_.synced(settled);
      continue;
    }
    Chunk* chunk = failed_chunk(order.start);
    if (!chunk) continue;
    if (order.kind == CopyJob::Order::Kind::kGiveUp) std::rethrow_exception(chunk->failure);
    begin_reads(*chunk);
  }
}

// One that waits for what is to be done.
Chunk* Pipeline::failed_chunk(uint64_t start) {
  for (const auto& chunk : chunks_) {
    if (chunk->step.start == start && chunk->failure && chunk->reads_left == 0) return chunk.get();
  }
  return nullptr;
}

// Whether one more step may be taken from the plan.
//
// All queues are bounded: chunks_ here, and so everything that holds one chunk each; the rows of
// the plan by these and by what job_.push() takes ahead; buffers by may_take(); writes under way
// and blocks to be hashed by hand_on_ready(), which is all that adds to them. Why the copy still
// goes on, whatever the bounds are: the first of chunks_ (the head) waits for none of them. If
// there is no chunk, a step may begin. If the head lacks memory, it gets it as soon as no write and
// no hash holds any, and those end by themselves. If its bytes are under way or with a worker, they
// come back by themselves, too. If they cannot be read, the caller is told so and decides. Else it
// is ready and is handed on, at once or after one of too many writes came back or the block that is
// being hashed was done; then the next chunk is the head.
bool Pipeline::may_begin() const {
  bool limited = job_.spec_.rate_limit > 0 && next_read_ > Engine::Clock::now() + kBurst;
  if (limited) return false;
  if (chunks_.empty()) return true;
  if (!held_.empty() || reading_ >= job_.spec_.requests) return false;
  return chunks_.size() < kMaxChunks && rows_ < kMaxRows;
}

// Whether there is memory for the reads that a chunk wants next.
bool Pipeline::may_take(const Chunk& chunk) const {
  if (pool_.in_use() + chunk.wanted <= job_.spec_.memory) return true;
  // More than that only for the head: what others hold behind it comes free after it. But what
  // writes and hashes hold comes free before.
  bool comes_free = sink_->in_flight() > 0 || (hash_ && hash_->busy());
  return &chunk == chunks_.front().get() && !comes_free;
}

void Pipeline::start_steps() {
  start_held();
  while (may_begin()) {
    std::optional<Step> step = next_step();
    if (!step) return;
    start(std::move(*step));
    start_held();
  }
}

// Starts reads that waited for memory: the head's, and others' as far as it reaches.
void Pipeline::start_held() {
  std::deque<Chunk*> held = std::exchange(held_, {});
  for (Chunk* chunk : held) {
    if (!may_take(*chunk)) {
      held_.push_back(chunk);
      continue;
    }
    if (compression_of(job_.spec_) && !chunk->streams) chunk->streams = pool_.get(chunk->padded);
    reader_.start(*chunk);
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
  rows_ += started.step.rows.size();
  if (started.step.kind != Step::Kind::kData) {
    started.ready = true;
    return;
  }
  begin_reads(started);
  uint64_t bytes = started.step.length;
  job_.read_ += bytes;
  if (job_.spec_.rate_limit > 0) {
    auto cost = std::chrono::duration<double>(static_cast<double>(bytes) /
                                              static_cast<double>(job_.spec_.rate_limit));
    next_read_ = std::max(next_read_, Engine::Clock::now()) +
                 std::chrono::duration_cast<Engine::Clock::duration>(cost);
  }
}

void Pipeline::begin_reads(Chunk& chunk) {
  reading_++;
  reader_.plan(chunk, writer_->unit());
  if (compression_of(job_.spec_)) chunk.wanted += chunk.padded;
  held_.push_back(&chunk);
}

std::unique_ptr<Compressor> Pipeline::borrow_compressor() {
  const CopyCompression* compression = compression_of(job_.spec_);
  if (!compression) return nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!compressors_.empty()) {
      auto compressor = std::move(compressors_.back());
      compressors_.pop_back();
      return compressor;
    }
  }
  Compression type =
      compression->type == CompressionType::kZstd ? Compression::kZstd : Compression::kDeflate;
  return make_compressor(type, compression->level);
}

void Pipeline::prepare(Chunk& chunk) {
  Reader::expand(chunk, pool_);
  if (!chunk.rows_left.empty()) return;
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
  std::vector<Chunk*> chunks;
  {
    std::lock_guard lock(mutex_);
    chunks.swap(prepared_);
    preparing_ -= chunks.size();
    if (worker_failure_) std::rethrow_exception(worker_failure_);
  }
  for (Chunk* chunk : chunks) prepared(*chunk);
}

// True if that made room for more.
bool Pipeline::hand_on_ready() {
  bool any = false;
  while (!chunks_.empty() && chunks_.front()->ready && sink_->in_flight() < kMostWrites &&
         !(hash_ && hash_->behind())) {
    any = true;
    job_.check_cancelled();
    Chunk& head = *chunks_.front();
    if (!hand_on(head)) continue;
    rows_ -= head.step.rows.size();
    chunks_.pop_front();
  }
  return any;
}

// False if it was only a part: what is left is the chunk now.
bool Pipeline::hand_on(Chunk& chunk) {
  Step& step = chunk.step;
  if (step.kind == Step::Kind::kData) {
    hand_on_data(chunk);
    return true;
  }
  uint64_t length = std::min(step.length, writer_->most_zero());
  if (hash_) length = std::min(length, ContentHash::kMostAtOnce);
  if (step.kind == Step::Kind::kSkip) {
    writer_->skip(length);
    if (hash_) hash_->skip(length);
    count(writer_->has_backing() ? job_.unchanged_ : job_.zero_, length);
  } else {
    writer_->zero(length);
    if (hash_) hash_->zero(length);
    count(job_.zero_, length);
  }
  step.start += length;
  step.length -= length;
  return step.length == 0;
}

void Pipeline::hand_on_data(const Chunk& chunk) {
  uint64_t unit = writer_->unit();
  for (size_t i = 0; i < chunk.units.size();) {
    uint32_t kind = chunk.units[i];
    size_t end = i + 1;
    bool stream = kind != 0 && kind != Chunk::kStored;
    while (!stream && end < chunk.units.size() && chunk.units[end] == kind) end++;
    uint64_t length = (end - i) * unit;
    const uint8_t* bytes = chunk.buffer->data() + i * unit;
    if (stream) {
      writer_->compressed(chunk.streams->data() + i * unit, kind);
    } else if (kind == 0) {
      writer_->zero(length);
    } else {
      writer_->data(bytes, length, chunk.buffer);
    }
    if (hash_ && kind == 0) hash_->zero(length);
    if (hash_ && kind != 0) hash_->data(bytes, length, chunk.buffer);
    // The last unit may stand past the end of the disk.
    count(kind == 0 ? job_.zero_ : job_.data_, std::min(length, chunk.step.length - i * unit));
    i = end;
  }
}

void Pipeline::count(std::atomic<uint64_t>& as, uint64_t length) {
  as += length;
  job_.position_ += length;
}

// Writes what was put, and waits for it; what is read goes on meanwhile.
void Pipeline::drain() {
  sink_->flush();
  while (sink_->in_flight() > 0) {
    job_.check_cancelled();
    start_steps();
    turn();
  }
}

// Makes durable what was put.
void Pipeline::sync() {
  drain();
  sink_->sync();
  drain();
}

// Teardown after a failure, in the one order that is safe. Nothing new goes to the kernel first;
// then the servers and the caller lose their access to our memory; then the kernel's requests come
// back. Only after that may a descriptor be closed or a buffer be freed: until its last request is
// back, the number of a closed descriptor could already be another file of this process, and a
// request handed over late would read from or write to that. (The descriptors of the sources are
// closed with `stores_`, which ends after `queue_`; that of the target by the job.)
void Pipeline::abandon() {
  queue_.stop();
  forget_done();
  for (Store& store : stores_) store.abandon();
  sink_->abandon();
  while (queue_.in_flight() > 0) {
    queue_.reap(done_, true);
    forget_done();
  }
}

void Pipeline::forget_done() {
  for (Transfer* transfer : std::exchange(done_, {})) {
    try {
      if (transfer->op != Op::kRead) sink_->complete(transfer);
    } catch (const Error&) {
      // The first failure is the one that is told.
    }
  }
}

}  // namespace qb
