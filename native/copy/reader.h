// Brings the bytes of a step into memory: reads, aligned where the file asks for it, and expands
// compressed clusters.
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/file.h"
#include "copy/assembler.h"
#include "io/queue.h"
#include "source/caller_reads.h"
#include "source/nbd_client.h"

namespace qb {

struct Chunk;

// What the bytes of a source come from: a file, an NBD export, or the caller.
struct Store {
  Store() = default;
  ~Store() {
    if (caller) caller->close();
  }
  // After a failure: no remote request can touch anybody's memory any more. A file stays open, for
  // requests on it may be under way.
  void abandon() {
    nbd.reset();
    if (caller) caller->close();
  }
  Store(Store&&) = default;
  Store& operator=(Store&&) = default;

  uint64_t size = 0;  // when it was opened: what lies behind must not be asked for
  std::optional<File> file;
  std::unique_ptr<NbdClient> nbd;
  std::shared_ptr<CallerReads> caller;

  // None for a file.
  Remote* remote() const { return nbd ? static_cast<Remote*>(nbd.get()) : caller.get(); }
  // What offset, length and memory of a read must be multiples of.
  unsigned alignment() const { return file ? file->alignment() : remote()->alignment(); }
};

// One read on its way into its chunk.
struct Read {
  Transfer transfer;
  Chunk* chunk = nullptr;
  // One, or all rows of the chunk that lie in the same compressed cluster: an image that covers a
  // large compressed cluster with small pieces must not make it be read once for each.
  std::vector<Row> rows;
  uint64_t bounced = 0;  // bytes of `bounce`; 0: it goes right into the chunk's memory
  BufferRef bounce;
  uint64_t lead = 0;    // bytes of `bounce` before the wanted ones
  uint64_t needed = 0;  // bytes of the transfer without which the rows are not complete
};

// A step in work. Chunks are handed on in guest order, whenever their reads end.
struct Chunk {
  Step step;
  BufferRef buffer;     // data steps: the bytes, padded with zeroes to whole units
  uint64_t padded = 0;  // bytes of `buffer` in use
  // What the rows need besides `buffer` may be many times its size, so they are read in rounds.
  std::vector<std::unique_ptr<Read>> reads;  // of this round
  size_t reads_left = 0;                     // those that have not come back
  std::vector<Row> rows_left;                // for the rounds to come
  uint64_t wanted = 0;                       // bytes of memory that this round takes
  bool ready = false;                        // may be handed on
  // Of the first read that failed. A chunk whose reads are all back is read again, or given up.
  std::exception_ptr failure;

  uint8_t* place_of(const Row& row) const { return buffer->data() + (row.start - step.start); }

  // Found out by examine(), one per unit: 0 = zero, and of those that are not the size of the
  // stream in `streams` (at unit i times the unit's size), or `stored` if it is stored as it is.
  static constexpr uint32_t kStored = ~0u;
  std::vector<uint32_t> units;
  BufferRef streams;
};

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
  // `failure` may be set. Throws CopyError for what no second try mends.
  Chunk* complete(Transfer* transfer);
  // Puts what went through other memory into its place and frees that. Throws CopyError.
  static void expand(Chunk& chunk, BufferPool& pool);

 private:
  std::unique_ptr<Read> plan_read(const Chunk& chunk, const Row& row) const;
  static bool joins_read(Chunk& chunk, const Row& row);
  void submit(Chunk& chunk, Read& read);

  std::vector<Store>& stores_;
  Queue& queue_;
  BufferPool& pool_;
};

}  // namespace qb
