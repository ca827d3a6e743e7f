// The inside of a running copy: everything that lives only on the job's thread.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "codec/codec.h"
#include "copy/assembler.h"
#include "copy/content_hash.h"
#include "copy/job.h"
#include "copy/reader.h"
#include "copy/sink.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// Not thread-safe; the engine must outlive it.
class Pipeline {
 public:
  // Most requests that are with the engine at once.
  static unsigned engine_depth(const CopySpec& spec);

  // Throws Error when the target cannot be such an image.
  Pipeline(CopyJob& job, Engine& engine);

  // Runs until the target is complete. Throws CopyError or Error once no request is under way any
  // more: descriptors and buffers may be closed and freed then.
  void run();

 private:
  void copy();
  void start_steps();
  std::optional<Step> next_step();
  void start(Step step);
  bool may_begin() const;
  bool may_take(const Chunk& chunk) const;
  void start_held();
  void begin_reads(Chunk& chunk);
  void follow_orders();
  Chunk* failed_chunk(uint64_t start);
  void turn();
  void handle(Transfer* transfer);
  void prepare(Chunk& chunk);
  void prepared(Chunk& chunk);
  void prepare_on_worker(Chunk& chunk);
  void collect_prepared();
  bool hand_on_ready();
  bool hand_on(Chunk& chunk);
  void hand_on_data(const Chunk& chunk);
  void count(std::atomic<uint64_t>& as, uint64_t length);
  void finish_hash();
  void drain();
  void sync();
  void abandon();
  void forget_done();
  std::unique_ptr<Compressor> borrow_compressor();

  CopyJob& job_;
  Engine& engine_;
  // The order of these matters: `queue_` waits for the kernel before the buffers are freed and the
  // descriptors of `stores_` are closed, and `workers_` for its tasks before all of them.
  BufferPool pool_;
  std::deque<std::unique_ptr<Chunk>> chunks_;  // in guest order
  std::vector<Store> stores_;
  Queue queue_;
  std::unique_ptr<Sink> sink_;
  std::unique_ptr<DiskWriter> writer_;
  uint64_t step_bytes_;
  Assembler assembler_;
  Reader reader_;
  bool rows_closed_ = false;
  size_t rows_ = 0;                      // of the steps in `chunks_`
  size_t reading_ = 0;                   // chunks that lack bytes, `held_` included
  std::deque<Chunk*> held_;              // whose next reads wait for memory
  std::vector<Transfer*> done_;          // come back and not handled yet
  Engine::Clock::time_point next_read_;  // rate limit
  std::optional<ContentHash> hash_;      // if one is wanted

  std::mutex mutex_;  // guards the three below
  std::vector<Chunk*> prepared_;
  std::exception_ptr worker_failure_;
  std::vector<std::unique_ptr<Compressor>> compressors_;
  size_t preparing_ = 0;  // chunks with the workers; this thread's
  Workers workers_;
};

}  // namespace qb
