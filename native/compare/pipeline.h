// The inside of a running comparison: everything that lives only on the job's thread.
#pragma once

#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/file.h"
#include "base/workers.h"
#include "compare/fetcher.h"
#include "compare/mailbox.h"
#include "compare/spec.h"
#include "copy/store.h"
#include "io/queue.h"

namespace qb {

// Not thread-safe; all that it is made of must outlive it.
class ComparePipeline {
 public:
  // `files`: of the spec's sources, nullopt if not a file; the pipeline closes those it takes.
  // Throws Error.
  ComparePipeline(const CompareSpec& spec, std::vector<std::optional<File>>& files,
                  CompareMailbox& mailbox, Engine& engine);

  // Until all is compared, or the first finding where that is all that is wanted. Throws CopyError
  // or Error. Either way no request is under way any more when it is over.
  void run();

 private:
  void compare();
  void start_chunks();
  bool fill_pairs();
  std::unique_ptr<PairChunk> next_chunk();
  void process_completions();
  void examine(PairChunk& chunk);
  void examine_on_worker(PairChunk& chunk);
  void collect_examined();
  bool deliver_ready();
  void abandon();

  const CompareSpec& spec_;
  CompareMailbox& mailbox_;
  Engine& engine_;
  // The order of these matters: the queue waits for the kernel before buffers are freed and the
  // descriptors of the stores are closed, and the workers for their tasks before all of them.
  BufferPool pool_;
  std::deque<std::unique_ptr<PairChunk>> chunks_;  // in guest order
  std::unique_ptr<PairChunk> waiting_;             // planned, has no memory yet
  std::vector<Store> stores_;
  Queue queue_;
  Fetcher fetcher_;
  std::deque<RowPair> pairs_;  // not yet in a chunk
  uint64_t fed_to_ = 0;        // guest, bytes
  bool closed_ = false;
  bool over_ = false;            // the first finding was delivered, and is all that is wanted
  uint64_t memory_ = 0;          // bytes that the fetches of `chunks_` take
  std::vector<Transfer*> done_;  // come back and not handled yet

  std::mutex mutex_;  // guards the two below
  std::vector<PairChunk*> examined_;
  std::exception_ptr worker_failure_;
  Workers workers_;
};

}  // namespace qb
