#include "copy/classify.h"

#include "base/is_zero.h"

namespace qb {

void classify(Chunk& chunk, uint64_t unit, Compressor* compressor, size_t limit, BufferPool& pool) {
  if (compressor && chunk.padded > 0 && !chunk.streams) chunk.streams = pool.get(chunk.padded);
  chunk.units.resize(chunk.padded / unit);
  for (size_t i = 0; i < chunk.units.size(); i++) {
    const uint8_t* bytes = chunk.buffer->data() + i * unit;
    if (is_zero(bytes, unit)) {
      chunk.units[i] = 0;
      continue;
    }
    size_t size = 0;
    if (compressor)
      size = compressor->compress(bytes, unit, chunk.streams->data() + i * unit, limit);
    chunk.units[i] = size > 0 ? static_cast<uint32_t>(size) : Chunk::kStored;
  }
}

}  // namespace qb
