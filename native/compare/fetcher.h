// Reads the stored bytes of both sides of some pairs into memory, in few and large reads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "compare/finding.h"
#include "compare/row_pair.h"
#include "copy/store.h"
#include "io/queue.h"

namespace qb {

struct PairChunk;

// One read, for all rows of one side that lie in its range of one file.
struct Fetch {
  Transfer transfer;
  PairChunk* chunk = nullptr;
  unsigned side = 0;
  std::vector<uint32_t> rows;  // indices of pairs of the chunk
  uint64_t begin = 0;          // in the file, bytes: the range of the rows, also past its end
  uint64_t end = 0;
  BufferRef memory;       // from the aligned `transfer.offset` on, up to `end` at least
  uint64_t readable = 0;  // bytes of `memory` that the file had when it was opened
  int error = 0;          // errno
};

// Pairs whose bytes are in memory at the same time. Compared as one piece of work.
struct PairChunk {
  std::vector<RowPair> pairs;  // in guest order
  std::vector<std::unique_ptr<Fetch>> fetches;
  std::vector<Fetch*> fetch_of[2];  // by index of pair; null: reads as zero
  size_t fetches_left = 0;
  uint64_t memory = 0;  // bytes that the fetches take
  bool compressed = false;
  bool ready = false;             // compared
  std::vector<Finding> findings;  // in guest order
};

// Not thread-safe.
class Fetcher {
 public:
  Fetcher(std::vector<Store>& stores, Queue& queue, BufferPool& pool);

  // Decides which reads a chunk takes, and so its memory; starts none of them.
  void plan(PairChunk& chunk);
  // Starts the reads. The chunk is complete at once if none are left.
  void start(PairChunk& chunk);
  // A read of ours that came back. Returns its chunk when that was the last one. A read for several
  // rows that fails is done again row by row: only those that cannot be read fail. Throws CopyError
  // when the server of a side is lost.
  PairChunk* complete(Transfer* transfer);

 private:
  void plan_side(PairChunk& chunk, unsigned side);
  std::unique_ptr<Fetch> new_fetch(PairChunk& chunk, unsigned side, uint32_t row);
  void submit(Fetch& fetch);
  void split(Fetch& fetch);

  std::vector<Store>& stores_;
  Queue& queue_;
  BufferPool& pool_;
};

}  // namespace qb
