#include "copy/read_ahead.h"

#include <utility>

namespace qb {

namespace {

uint64_t read_bytes(const Step& step) {
  return (step.kind == Step::Kind::kData ? step.length : 0) + step.hidden_bytes;
}

}  // namespace

ReadAhead::ReadAhead(const CopySpec& spec, uint64_t unit, StepFeed& steps, Window& window,
                     const Reader& reader, BufferPool& pool, LiveCounters& counters)
    : spec_(spec),
      unit_(unit),
      compresses_(compression_of(spec) != nullptr),
      steps_(steps),
      window_(window),
      reader_(reader),
      pool_(pool),
      counters_(counters),
      rate_(*spec.shared_rate) {}

void ReadAhead::start(bool memory_comes_back) {
  start_held(memory_comes_back);
  while (may_begin()) {
    std::optional<Step> step = steps_.next();
    if (!step) return;
    begin(std::move(*step));
    start_held(memory_comes_back);
  }
}

// Whether one more step may be taken from the plan.
bool ReadAhead::may_begin() {
  paused_until_ = rate_.paused_until(Engine::Clock::now());
  if (paused_until_) return false;
  if (window_.empty()) return true;
  if (!held_.empty() || reading_ >= spec_.requests) return false;
  return !window_.full();
}

// Whether there is memory for the reads that a chunk wants next: more than there is only for the
// head, once nothing comes free before it.
bool ReadAhead::may_take(const Chunk& chunk, bool memory_comes_back) const {
  if (pool_.in_use() + chunk.wanted <= spec_.memory) return true;
  return &chunk == &window_.head() && !memory_comes_back;
}

// Starts reads that waited for memory: the head's, and others' as far as it reaches.
void ReadAhead::start_held(bool memory_comes_back) {
  std::deque<Chunk*> held = std::exchange(held_, {});
  for (Chunk* chunk : held) {
    if (!may_take(*chunk, memory_comes_back)) {
      held_.push_back(chunk);
      continue;
    }
    if (compresses_ && chunk->padded > 0 && !chunk->streams)
      chunk->streams = pool_.get(chunk->padded);
    reader_.start(*chunk);
  }
}

void ReadAhead::begin(Step step) {
  Chunk& chunk = window_.add(std::move(step));
  if (!chunk.step.reads()) {
    chunk.ready = true;
    return;
  }
  begin_reads(chunk);
  counters_.add_read(read_bytes(chunk.step));
  rate_.spend(limited_bytes(chunk.step), Engine::Clock::now());
}

// Bytes that count against the rate limit.
uint64_t ReadAhead::limited_bytes(const Step& step) const {
  uint64_t free = 0;
  for (const Row& row : step.rows) {
    if (spec_.sources[row.file].unlimited) free += row.length;
  }
  return read_bytes(step) - free;
}

void ReadAhead::begin_reads(Chunk& chunk) {
  reading_++;
  reader_.plan(chunk, unit_);
  if (compresses_) chunk.wanted += chunk.padded;
  held_.push_back(&chunk);
}

Chunk* ReadAhead::complete(Transfer* transfer) {
  Chunk* chunk = reader_.complete(transfer);
  if (!chunk) return nullptr;
  if (chunk->failure) {
    reading_--;
    // It waits for a decision, and its memory is of use to others.
    chunk->reads.clear();
    chunk->buffer.reset();
    chunk->hidden.reset();
    chunk->streams.reset();
  } else if (chunk->rows_left.empty()) {
    reading_--;
  }
  return chunk;
}

void ReadAhead::finish_round(Chunk& chunk) {
  if (chunk.rows_left.empty()) {
    chunk.ready = true;
    return;
  }
  reader_.plan_next(chunk);
  held_.push_back(&chunk);
}

}  // namespace qb
