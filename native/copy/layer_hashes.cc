#include "copy/layer_hashes.h"

#include <algorithm>

#include "base/is_zero.h"

namespace qb {

LayerHashes::LayerHashes(const CopySpec& spec, uint64_t unit, BlockHasher& hasher) : unit_(unit) {
  for (const LayerHash& layer : spec.layers) {
    layers_.emplace_back(layer, spec.size, hasher);
  }
}

void LayerHashes::add(const Chunk& chunk) {
  for (const Row& row : chunk.step.own) {
    auto layer = std::find_if(layers_.begin(), layers_.end(),
                              [&](const Layer& one) { return one.file == row.file; });
    if (row.kind == RowKind::kSkip) {
      layer->hash.add_skipped(row.length);
    } else if (row.kind == RowKind::kZero) {
      layer->hash.add_zeroes(row.length);
    } else {
      add_data(layer->hash, chunk, row);
    }
  }
}

// As a copy does that makes the image: units of nothing but zeroes are zero.
void LayerHashes::add_data(ContentHash& hash, const Chunk& chunk, const Row& row) const {
  const uint8_t* bytes = chunk.place_of(row);
  const BufferRef& owner = row.hidden ? chunk.hidden : chunk.buffer;
  auto zero_at = [&](uint64_t at) { return is_zero(bytes + at, std::min(unit_, row.length - at)); };
  for (uint64_t at = 0; at < row.length;) {
    bool zero = zero_at(at);
    uint64_t end = at + unit_;
    while (end < row.length && zero_at(end) == zero) end += unit_;
    end = std::min(end, row.length);
    if (zero) {
      hash.add_zeroes(end - at);
    } else {
      hash.add_data(bytes + at, end - at, owner);
    }
    at = end;
  }
}

bool LayerHashes::behind() {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](Layer& layer) { return layer.hash.behind(); });
}

bool LayerHashes::busy() const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const Layer& layer) { return layer.hash.busy(); });
}

std::vector<std::string> LayerHashes::finish() {
  std::vector<std::string> checksums;
  for (Layer& layer : layers_) checksums.push_back(layer.hash.finish());
  return checksums;
}

}  // namespace qb
