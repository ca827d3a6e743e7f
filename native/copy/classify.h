// Decides for each unit of a chunk: zero, a compressed stream, or raw data.
#pragma once

#include "codec/compressor.h"
#include "copy/chunk.h"

namespace qb {

// Fills Chunk::units (and with a `compressor` Chunk::streams, whose memory may be there already).
// `unit`: the target's, bytes; `limit`: the largest stream worth storing, bytes. Any thread, one
// compressor per thread.
void classify(Chunk& chunk, uint64_t unit, Compressor* compressor, size_t limit, BufferPool& pool);

}  // namespace qb
