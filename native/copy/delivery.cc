#include "copy/delivery.h"

#include <algorithm>
#include <utility>

namespace qb {

Delivery::Delivery(const CopySpec& spec, DiskWriter& writer, Workers& workers,
                   std::function<void()> hashed, LiveCounters& counters)
    : writer_(writer),
      counters_(counters),
      hasher_(workers, std::move(hashed)),
      layers_(spec, writer.unit(), hasher_) {
  bool wanted = spec.hash || std::holds_alternative<HashTarget>(spec.target);
  if (wanted) hash_.emplace(spec.size, writer.has_backing(), hasher_);
}

bool Delivery::deliver(Chunk& chunk) {
  if (!chunk.hashed) layers_.add(chunk);
  chunk.hashed = true;
  if (chunk.step.kind != Step::Kind::kData) return deliver_run(chunk.step);
  deliver_data(chunk);
  return true;
}

// As much of it as may be given at a time.
bool Delivery::deliver_run(Step& step) {
  uint64_t length = std::min(step.length, writer_.most_zero());
  if (hash_) length = std::min(length, ContentHash::kMostAtOnce);
  if (step.kind == Step::Kind::kZero) {
    writer_.write_zeroes(length);
    if (hash_) hash_->add_zeroes(length);
    counters_.add_zero(length);
  } else {
    writer_.skip(length);
    if (hash_) hash_->add_skipped(length);
    if (writer_.has_backing()) {
      counters_.add_unchanged(length);
    } else {
      counters_.add_zero(length);
    }
  }
  step.start += length;
  step.length -= length;
  return step.length == 0;
}

void Delivery::deliver_data(const Chunk& chunk) {
  uint64_t unit = writer_.unit();
  for (size_t i = 0; i < chunk.units.size();) {
    uint32_t kind = chunk.units[i];
    size_t end = i + 1;
    bool stream = kind != 0 && kind != Chunk::kStored;
    while (!stream && end < chunk.units.size() && chunk.units[end] == kind) end++;
    uint64_t length = (end - i) * unit;
    const uint8_t* bytes = chunk.buffer->data() + i * unit;
    if (stream) {
      writer_.write_compressed(chunk.streams->data() + i * unit, kind);
    } else if (kind == 0) {
      writer_.write_zeroes(length);
    } else {
      writer_.write_data(bytes, length, chunk.buffer);
    }
    // The last unit may extend past the end of the disk.
    uint64_t counted = std::min(length, chunk.step.length - i * unit);
    if (kind == 0) {
      if (hash_) hash_->add_zeroes(length);
      counters_.add_zero(counted);
    } else {
      if (hash_) hash_->add_data(bytes, length, chunk.buffer);
      counters_.add_data(counted);
    }
    i = end;
  }
}

}  // namespace qb
