// Reads the bytes of a step into memory, aligned where the file requires it, and expands
// compressed clusters.
#pragma once

#include <memory>
#include <vector>

#include "base/buffer.h"
#include "copy/chunk.h"
#include "copy/store.h"
#include "io/queue.h"

namespace qb {

// Not thread-safe, but that expand() may run on any thread once the reads of a round are complete.
class Reader {
 public:
  Reader(std::vector<Store>& stores, Queue& queue, BufferPool& pool);

  // Plans the first round of a data step's reads, or plans it again after a failure; `unit` is the
  // target's, bytes. Takes no memory yet: `wanted` says how much start() will.
  void plan(Chunk& chunk, uint64_t unit);
  // Plans the next round. REQUIRES: expand() was called for the last one, and rows are left.
  void plan_next(Chunk& chunk);
  // Starts the reads that were planned. Throws CopyError for rows that no source file has.
  void start(Chunk& chunk);
  // A read of ours that came back. Returns its chunk when that was the last one of the round; its
  // `failure` may be set. Throws CopyError for faults that a retry cannot help.
  Chunk* complete(Transfer* transfer);
  // Copies bounced data into place and frees the bounce memory. Throws CopyError.
  static void expand(Chunk& chunk, BufferPool& pool);

 private:
  std::unique_ptr<Read> plan_read(const Chunk& chunk, const Row& row) const;
  bool continues_read(Chunk& chunk, const Row& row) const;
  static bool joins_read(Chunk& chunk, const Row& row);
  void submit(Chunk& chunk, Read& read);

  std::vector<Store>& stores_;
  Queue& queue_;
  BufferPool& pool_;
};

}  // namespace qb
