#include "compare/pipeline.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/error.h"
#include "compare/examiner.h"
#include "copy/endpoints.h"

namespace qb {

namespace {

// Guest bytes of a chunk, beyond which no pair is added to it.
constexpr uint64_t kChunkBytes = 1 << 20;

// Bytes to be read for a chunk, beyond which no pair is added to it: compressed clusters may be far
// larger than what of them is wanted.
constexpr uint64_t kChunkStored = 4 << 20;

// Pairs of a chunk: as many small clusters as are read at once, wherever they lie.
constexpr size_t kChunkPairs = 64;

uint64_t stored_bytes(const Row& row) {
  if (!row.reads()) return 0;
  return 2 * kPage + (row.compressed() ? row.size : row.length);
}

}  // namespace

ComparePipeline::ComparePipeline(const CompareSpec& spec, std::vector<std::optional<File>>& files,
                                 CompareMailbox& mailbox, Engine& engine)
    : spec_(spec),
      mailbox_(mailbox),
      engine_(engine),
      // Reads are of similar size: allocating their memory anew costs more than comparing it.
      pool_(spec.memory),
      stores_(open_stores(files, spec.sources, engine)),
      queue_(engine, spec.requests),
      fetcher_(stores_, queue_, pool_),
      workers_(std::max(1u, std::thread::hardware_concurrency())) {}

void ComparePipeline::run() {
  try {
    compare();
  } catch (...) {
    abandon();
    throw;
  }
  abandon();
}

void ComparePipeline::compare() {
  while (true) {
    mailbox_.check_cancelled();
    do {
      start_chunks();
    } while (deliver_ready());
    if (over_ || (closed_ && chunks_.empty() && pairs_.empty() && !waiting_)) return;
    process_completions();
  }
}

// Starts as many chunks as memory is there for; always one.
void ComparePipeline::start_chunks() {
  while (!over_) {
    if (!waiting_) waiting_ = next_chunk();
    if (!waiting_) return;
    if (!chunks_.empty() && memory_ + waiting_->memory > spec_.memory) return;
    PairChunk& chunk = *waiting_;
    chunks_.push_back(std::move(waiting_));
    memory_ += chunk.memory;
    fetcher_.start(chunk);
    for (const auto& fetch : chunk.fetches) mailbox_.count_read(fetch->transfer.iov[0].iov_len);
    if (chunk.fetches_left == 0) examine(chunk);
  }
}

// True if there is a pair.
bool ComparePipeline::fill_pairs() {
  while (pairs_.empty() && !closed_) {
    std::vector<RowPair> pairs;
    switch (mailbox_.take(pairs)) {
      case CompareMailbox::Inbox::kNothingYet:
        return false;
      case CompareMailbox::Inbox::kClosed:
        closed_ = true;
        break;
      case CompareMailbox::Inbox::kItems:
        for (const RowPair& pair : pairs) {
          if (pair.start() < fed_to_) throw Error(EINVAL, "order of the comparison");
          fed_to_ = pair.end();
          pairs_.push_back(pair);
        }
    }
  }
  return !pairs_.empty();
}

// The next chunk to read and compare; none until more pairs come.
std::unique_ptr<PairChunk> ComparePipeline::next_chunk() {
  if (!fill_pairs()) return nullptr;
  auto chunk = std::make_unique<PairChunk>();
  uint64_t guest = 0, stored = 0;
  while (!pairs_.empty() && chunk->pairs.size() < kChunkPairs) {
    const RowPair& pair = pairs_.front();
    uint64_t wanted = stored_bytes(pair.sides[0]) + stored_bytes(pair.sides[1]);
    bool fits = guest + pair.length() <= kChunkBytes && stored + wanted <= kChunkStored;
    if (!chunk->pairs.empty() && !fits) break;
    guest += pair.length();
    stored += wanted;
    chunk->pairs.push_back(pair);
    pairs_.pop_front();
  }
  fetcher_.plan(*chunk);
  return chunk;
}

// Waits for the next event and handles it.
void ComparePipeline::process_completions() {
  queue_.reap(done_, true);
  for (Store& store : stores_) store.collect(done_);
  while (!done_.empty()) {
    // Taken out first: after a failure abandon() handles the rest.
    Transfer* transfer = done_.back();
    done_.pop_back();
    if (PairChunk* chunk = fetcher_.complete(transfer)) examine(*chunk);
  }
  collect_examined();
}

// A chunk whose bytes are all there.
void ComparePipeline::examine(PairChunk& chunk) {
  if (chunk.compressed) {
    examine_on_worker(chunk);
    return;
  }
  examine_pairs(chunk, spec_.granularity, pool_);
  chunk.ready = true;
}

void ComparePipeline::examine_on_worker(PairChunk& chunk) {
  workers_.submit([this, &chunk] {
    std::exception_ptr failure;
    try {
      examine_pairs(chunk, spec_.granularity, pool_);
    } catch (...) {
      failure = std::current_exception();
    }
    {
      std::lock_guard lock(mutex_);
      if (failure && !worker_failure_) worker_failure_ = failure;
      examined_.push_back(&chunk);
    }
    engine_.wake();
  });
}

void ComparePipeline::collect_examined() {
  std::lock_guard lock(mutex_);
  for (PairChunk* chunk : examined_) chunk->ready = true;
  examined_.clear();
  if (worker_failure_) std::rethrow_exception(worker_failure_);
}

// True if more can be taken now.
bool ComparePipeline::deliver_ready() {
  bool any = false;
  while (!over_ && !chunks_.empty() && chunks_.front()->ready && mailbox_.may_find()) {
    const PairChunk& chunk = *chunks_.front();
    any = true;
    uint64_t position = chunk.pairs.back().end();
    if (spec_.granularity == 0 && !chunk.findings.empty()) {
      over_ = true;
      uint64_t found = chunk.findings.front().start;
      for (const RowPair& pair : chunk.pairs) {
        if (pair.start() <= found && found < pair.end()) position = pair.start();
      }
    }
    memory_ -= chunk.memory;
    mailbox_.found(chunk.findings, position);
    chunks_.pop_front();
  }
  return any;
}

// Teardown in the one order that is safe: nothing new goes to the kernel, the servers lose their
// access to our memory, and then the kernel's requests come back. Only after that may a descriptor
// be closed or a buffer be freed.
void ComparePipeline::abandon() {
  queue_.stop();
  for (Store& store : stores_) store.abandon();
  while (queue_.in_flight() > 0) {
    done_.clear();
    queue_.reap(done_, true);
  }
}

}  // namespace qb
