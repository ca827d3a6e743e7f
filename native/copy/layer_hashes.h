// The hashes of what the images of a chain hold themselves.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/workers.h"
#include "copy/chunk.h"
#include "copy/content_hash.h"
#include "copy/spec.h"

namespace qb {

// Not thread-safe. `workers` must end first.
class LayerHashes {
 public:
  // `unit`: see Layers; `hashed`: see ContentHash.
  LayerHashes(const CopySpec& spec, uint64_t unit, Workers& workers,
              const std::function<void()>& hashed);

  // Takes what the layers hold in the range of a chunk; chunks come in guest order.
  void add(const Chunk& chunk);

  // See ContentHash.
  bool behind();
  bool busy() const;
  // In the order of the spec. REQUIRES: all was given, !busy().
  std::vector<std::string> finish();

 private:
  struct Layer {
    Layer(const LayerHash& layer, uint64_t size, Workers& workers,
          const std::function<void()>& hashed)
        : file(layer.file), hash(size, layer.has_backing, workers, hashed) {}

    uint32_t file;
    ContentHash hash;
  };

  void add_data(ContentHash& hash, const Chunk& chunk, const Row& row) const;

  uint64_t unit_;
  std::deque<Layer> layers_;
};

}  // namespace qb
