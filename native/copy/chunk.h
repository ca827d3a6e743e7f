// A step of the copy in work: its reads and their results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "copy/assembler.h"
#include "io/queue.h"

namespace qb {

struct Chunk;

// One read on its way into its chunk.
struct Read {
  Transfer transfer;
  Chunk* chunk = nullptr;
  // One; or plain ones that follow each other in the file; or all rows of the chunk that lie in the
  // same compressed cluster: an image that covers a large compressed cluster with small pieces must
  // not make it be read once for each.
  std::vector<Row> rows;
  uint64_t bounced = 0;  // bytes of `bounce`; 0: it goes right into the chunk's memory
  BufferRef bounce;
  uint64_t lead = 0;    // bytes of `bounce` before the wanted ones
  uint64_t needed = 0;  // bytes of the transfer without which the rows are not complete
};

// Chunks are delivered in guest order, whenever their reads end.
struct Chunk {
  Step step;
  BufferRef buffer;     // data steps: the bytes, padded with zeroes to whole units
  uint64_t padded = 0;  // bytes of `buffer` in use
  BufferRef hidden;     // the bytes of layers that no row of the step reads
  // The rows' streams may be many times the size of `buffer`, so they are read in rounds.
  std::vector<std::unique_ptr<Read>> reads;  // of this round
  size_t reads_left = 0;                     // those that have not come back
  std::vector<Row> rows_left;                // for the rounds to come
  uint64_t wanted = 0;                       // bytes of memory that this round takes
  bool ready = false;                        // may be delivered
  bool hashed = false;                       // the layers' hashes have it
  // Of the first read that failed. A chunk whose reads are all back is read again, or given up.
  std::exception_ptr failure;

  uint8_t* place_of(const Row& row) const {
    if (row.hidden) return hidden->data() + row.place;
    return buffer->data() + (row.start - step.start);
  }

  // Found out by classify(), one per unit: 0 = zero, and of those that are not the size of the
  // stream in `streams` (at unit i times the unit's size), or `stored` if it is stored as it is.
  static constexpr uint32_t kStored = ~0u;
  std::vector<uint32_t> units;
  BufferRef streams;
};

}  // namespace qb
