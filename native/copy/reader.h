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
  BufferRef bounce;     // where it goes through other memory than the chunk's
  uint64_t lead = 0;    // bytes of `bounce` before the wanted ones
  uint64_t needed = 0;  // bytes of the transfer without which the rows are not complete
};

// A step in work. Chunks are handed on in guest order, whenever their reads end.
struct Chunk {
  Step step;
  BufferRef buffer;     // data steps: the bytes, padded with zeroes to whole units
  uint64_t padded = 0;  // bytes of `buffer` in use
  std::vector<std::unique_ptr<Read>> reads;
  size_t reads_left = 0;
  bool ready = false;  // may be handed on
  // Of the first read that failed. A chunk whose reads are all back is read again, or given up.
  std::exception_ptr failure;

  uint8_t* place_of(const Row& row) const { return buffer->data() + (row.start - step.start); }

  // Found out by examine(), one per unit: 0 = zero, and of those that are not the size of the
  // stream in `streams` (at unit i times the unit's size), or `stored` if it is stored as it is.
  static constexpr uint32_t kStored = ~0u;
  std::vector<uint32_t> units;
  BufferRef streams;
};

// Not thread-safe, but that expand() may run on any thread once a chunk's reads are complete.
class Reader {
 public:
  Reader(std::vector<Store>& stores, Queue& queue, BufferPool& pool);

  // Starts the reads of a data step, or starts them again; `unit` is the target's, bytes. Throws
  // CopyError.
  void start(Chunk& chunk, uint64_t unit);
  // A read of ours that came back. Returns its chunk when that was the last one; its `failure` may
  // be set. Throws CopyError for what no second try mends.
  Chunk* complete(Transfer* transfer);
  // Puts what went through other memory into its place. Throws CopyError.
  static void expand(Chunk& chunk, BufferPool& pool);

 private:
  void start_row(Chunk& chunk, const Row& row);
  static bool joins_read(Chunk& chunk, const Row& row);

  std::vector<Store>& stores_;
  Queue& queue_;
  BufferPool& pool_;
};

}  // namespace qb
