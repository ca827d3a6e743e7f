// Reads ahead of the delivery, within the limits of a copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/buffer.h"
#include "copy/counters.h"
#include "copy/rate_limit.h"
#include "copy/reader.h"
#include "copy/spec.h"
#include "copy/step_feed.h"
#include "copy/window.h"

namespace qb {

// Not thread-safe.
//
// All queues of a copy are bounded: chunks here, and so everything that holds one chunk each; the
// rows of the plan by these and by what the mailbox takes ahead; buffers by the memory of the spec;
// writes under way and blocks to be hashed by delivery, which is all that adds to them. Why the
// copy still goes on, whatever the bounds are: the first chunk of the window (the head) waits for
// none of them. If there is no chunk, a step may begin. If the head lacks memory, it gets it as
// soon as no write and no hash holds any, and those end on their own: blocks that wait for others
// to be hashed with do so no longer while memory is short. If its bytes are under way or with a
// worker, they come back on their own, too. If they cannot be read, the caller is notified so and
// decides. Else it is ready and is delivered, at once or after one of too many writes came back or
// the block that is being hashed was done; then the next chunk is the head.
class ReadAhead {
 public:
  // `unit`: the target's, bytes.
  ReadAhead(const CopySpec& spec, uint64_t unit, StepFeed& steps, Window& window,
            const Reader& reader, BufferPool& pool, LiveCounters& counters);

  // Begins steps and starts reads, as far as the limits allow. `memory_comes_back`: writes or
  // hashes hold memory, which becomes free before that of chunks after the head.
  void start(bool memory_comes_back);
  // A read that came back. Returns its chunk when that was the last one of a round: its bytes are
  // in place, or its `failure` is set. Throws CopyError for faults that a retry cannot help.
  Chunk* complete(Transfer* transfer);
  // The data of a round is expanded: the next one is due, or the chunk is ready.
  void finish_round(Chunk& chunk);
  // Reads a failed chunk again.
  void retry(Chunk& chunk) { begin_reads(chunk); }

  // Whether reads wait for memory.
  bool starved() const { return !held_.empty(); }
  // Chunks that lack bytes, those that wait for memory included.
  size_t reading() const { return reading_; }
  // When the rate limit lets more be read; nothing if it did at the last start. It is not asked
  // anew: had it let go since, nothing would end a wait for the next event.
  std::optional<RateLimit::Time> paused_until() const { return paused_until_; }

 private:
  bool may_begin();
  bool may_take(const Chunk& chunk, bool memory_comes_back) const;
  void start_held(bool memory_comes_back);
  void begin(Step step);
  uint64_t limited_bytes(const Step& step) const;
  void begin_reads(Chunk& chunk);

  const CopySpec& spec_;
  uint64_t unit_;
  bool compresses_;
  StepFeed& steps_;
  Window& window_;
  Reader reader_;
  BufferPool& pool_;
  LiveCounters& counters_;
  RateLimit& rate_;
  size_t reading_ = 0;
  std::optional<RateLimit::Time> paused_until_;  // at the last start
  std::deque<Chunk*> held_;                      // whose next reads wait for memory
};

}  // namespace qb
