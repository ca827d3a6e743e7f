// Finds the differences between the two sides of a chunk.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "compare/fetcher.h"

namespace qb {

// Fills in the findings of a chunk whose fetches are complete, and releases their memory.
// `granularity`: findings are whole granules of this many bytes, all of them; 0: the first sector
// that differs, counted from the start of its pair, or the first pair that cannot be read, and
// nothing after it. Thread-safe for different chunks.
void examine_pairs(PairChunk& chunk, uint64_t granularity, BufferPool& pool);

}  // namespace qb
