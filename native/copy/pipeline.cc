#include "copy/pipeline.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "copy/error.h"

namespace qb {

namespace {

// One read: large enough that requests cost nothing beside their bytes, and memory is requests
// times it.
constexpr uint64_t kStepBytes = 1 << 20;

// Writes that may be with the kernel besides the reads. Memory bounds them long before.
constexpr unsigned kWriteSlots = 16;

// Writes that may be on their way to a target: where zeroes have to be sent, their share of
// memory is not that of buffers.
constexpr size_t kMaxWrites = 512;

uint64_t most_of(const DiskWriter& writer) {
  return std::max(kStepBytes, writer.unit());
}

Assembler assembler_for(const DiskWriter& writer, uint64_t size) {
  return {writer.unit(), most_of(writer), size, writer.has_backing()};
}

}  // namespace

unsigned Pipeline::engine_depth(const CopySpec& spec) {
  return spec.requests + kWriteSlots;
}

Pipeline::Pipeline(const CopySpec& spec, EndpointFiles& files, CopyMailbox& mailbox,
                   LiveCounters& counters, Engine& engine)
    : spec_(spec),
      target_(files.target),
      mailbox_(mailbox),
      stores_(open_stores(files.sources, spec.sources, engine)),
      queue_(engine, engine_depth(spec)),
      sink_(make_sink(spec.target, files.target, queue_, engine)),
      writer_(make_writer(spec, files.target, pool_, *sink_)),
      steps_(mailbox, assembler_for(*writer_, spec.size),
             Layers(spec, writer_->unit(), most_of(*writer_))),
      read_ahead_(spec, writer_->unit(), steps_, window_, Reader(stores_, queue_, pool_), pool_,
                  counters),
      preparer_(spec, *writer_, pool_, workers_, [&engine] { engine.wake(); }),
      delivery_(
          spec, *writer_, workers_, [&engine] { engine.wake(); }, counters),
      workers_(std::max(1u, std::thread::hardware_concurrency())) {}

Checksums Pipeline::run() {
  try {
    invalidate_old_image();
    copy();
    writer_->finish();
    finish_hash();
    finish_image();
    return delivery_.checksums();
  } catch (...) {
    abandon();
    throw;
  }
}

// An image that was on the device is invalid from now on.
void Pipeline::invalidate_old_image() {
  if (!std::holds_alternative<Qcow2Target>(spec_.target) || !target_->is_device()) return;
  uint64_t size = writer_->unit();
  BufferRef zeroes = pool_.get_zeroed(size);
  sink_->put(0, zeroes->data(), size, zeroes);
  sync();
}

void Pipeline::copy() {
  while (true) {
    mailbox_.check_cancelled();
    follow_commands();
    do {
      start_reads();
    } while (deliver_ready());
    if (steps_.complete() && window_.empty()) return;
    // Data held back for its neighbours would wait for ever if nothing else is under way.
    bool idle = read_ahead_.reading() == 0 && queue_.in_flight() == 0;
    if (idle && preparer_.in_progress() == 0) sink_->flush();
    if (read_ahead_.starved() || delivery_.hash_behind()) delivery_.start_hashes();
    process_completions();
  }
}

void Pipeline::finish_hash() {
  delivery_.start_hashes();
  while (delivery_.hash_busy()) {
    mailbox_.check_cancelled();
    process_completions();
  }
}

void Pipeline::finish_image() {
  drain();
  sink_->set_length(writer_->file_length());
  sync();
  mailbox_.check_cancelled();
  writer_->write_header();
  sink_->flush();
  // Also what makes the image valid: durability is judged by this descriptor, through which all was
  // written, and by its result. The kernel reports a failed write-back once to each description of
  // an open file, and to one that was opened later perhaps never.
  if (sink_->in_flight() > 0) sync();
}

// The decisions of the copy's caller.
void Pipeline::follow_commands() {
  for (const CopyCommand& command : mailbox_.take_commands()) {
    if (command.kind == CopyCommand::Kind::kSync) {
      uint64_t settled = writer_->settled();
      sync();
      mailbox_.report_synced(settled);
      continue;
    }
    Chunk* chunk = window_.find_failed(command.start);
    if (!chunk) continue;
    if (command.kind == CopyCommand::Kind::kGiveUp) std::rethrow_exception(chunk->failure);
    read_ahead_.retry(*chunk);
  }
}

void Pipeline::start_reads() {
  read_ahead_.start(sink_->in_flight() > 0 || delivery_.hash_busy());
}

// Waits for the next event and handles it.
void Pipeline::process_completions() {
  queue_.reap(done_, true, read_ahead_.paused_until());
  for (Store& store : stores_) store.collect(done_);
  sink_->collect(done_);
  while (!done_.empty()) {
    // Taken out first: after a failure abandon() handles the rest.
    Transfer* transfer = done_.back();
    done_.pop_back();
    complete(transfer);
  }
  collect_prepared();
}

void Pipeline::complete(Transfer* transfer) {
  if (transfer->op != Op::kRead) {
    sink_->complete(transfer);
    return;
  }
  Chunk* chunk = read_ahead_.complete(transfer);
  if (!chunk) return;
  if (!chunk->failure) {
    preparer_.start(*chunk);
    return;
  }
  if (!spec_.hold_failures) std::rethrow_exception(chunk->failure);
  mailbox_.report_failed({chunk->step.start, chunk->step.length});
}

void Pipeline::collect_prepared() {
  std::vector<Chunk*> prepared;
  preparer_.collect(prepared);
  for (Chunk* chunk : prepared) read_ahead_.finish_round(*chunk);
}

// True if more can be taken now.
bool Pipeline::deliver_ready() {
  bool any = false;
  while (!window_.empty() && window_.head().ready && sink_->in_flight() < kMaxWrites &&
         !delivery_.hash_behind()) {
    any = true;
    mailbox_.check_cancelled();
    if (delivery_.deliver(window_.head())) window_.drop_head();
  }
  return any;
}

// Writes all data put, and waits for it; reads go on meanwhile.
void Pipeline::drain() {
  sink_->flush();
  while (sink_->in_flight() > 0) {
    mailbox_.check_cancelled();
    start_reads();
    process_completions();
  }
}

// Syncs all data put.
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
  discard_completions();
  for (Store& store : stores_) store.abandon();
  sink_->abandon();
  while (queue_.in_flight() > 0) {
    queue_.reap(done_, true);
    discard_completions();
  }
}

void Pipeline::discard_completions() {
  for (Transfer* transfer : std::exchange(done_, {})) {
    try {
      if (transfer->op != Op::kRead) sink_->complete(transfer);
    } catch (const Error&) {
      // The first failure is the one reported.
    }
  }
}

}  // namespace qb
