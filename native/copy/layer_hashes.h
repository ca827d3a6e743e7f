// The hashes of what the images of a chain hold themselves.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "copy/chunk.h"
#include "copy/content_hash.h"
#include "copy/spec.h"

namespace qb {

// Not thread-safe. The workers of the hasher must end first.
class LayerHashes {
 public:
  // `unit`: see Layers.
  LayerHashes(const CopySpec& spec, uint64_t unit, BlockHasher& hasher);

  // Takes what the layers hold in the range of a chunk; chunks come in guest order.
  void add(const Chunk& chunk);

  // See ContentHash.
  bool behind();
  bool busy() const;
  // In the order of the spec. REQUIRES: all was given, !busy().
  std::vector<std::string> finish();

 private:
  struct Layer {
    Layer(const LayerHash& layer, uint64_t size, BlockHasher& hasher)
        : file(layer.file), hash(size, layer.has_backing, hasher) {}

    uint32_t file;
    ContentHash hash;
  };

  void add_data(ContentHash& hash, const Chunk& chunk, const Row& row) const;

  uint64_t unit_;
  std::deque<Layer> layers_;
};

}  // namespace qb
