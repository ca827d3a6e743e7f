// Hands chunks over to the target and to the hash, and counts their bytes by kind.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/workers.h"
#include "copy/chunk.h"
#include "copy/content_hash.h"
#include "copy/counters.h"
#include "copy/layer_hashes.h"
#include "copy/spec.h"
#include "image/disk_writer.h"

namespace qb {

// In hexadecimal.
struct Checksums {
  std::string content;              // empty if it is not wanted
  std::vector<std::string> layers;  // in the order of the spec
};

// Not thread-safe. `workers` must end first.
class Delivery {
 public:
  // `hashed`: called on any thread when hash_busy() or hash_behind() may have become false.
  Delivery(const CopySpec& spec, DiskWriter& writer, Workers& workers, std::function<void()> hashed,
           LiveCounters& counters);

  // Takes chunks that are ready, in guest order. False if it took only a part: the rest is the
  // chunk now. Throws Error.
  bool deliver(Chunk& chunk);

  // See BlockHasher.
  void start_hashes() { hasher_.start(); }
  // See ContentHash; both are false without one.
  bool hash_behind() { return (hash_ && hash_->behind()) || layers_.behind(); }
  bool hash_busy() const { return (hash_ && hash_->busy()) || layers_.busy(); }
  // REQUIRES: all is delivered, !hash_busy().
  Checksums checksums() { return {hash_ ? hash_->finish() : "", layers_.finish()}; }

 private:
  void deliver_data(const Chunk& chunk);
  bool deliver_run(Step& step);

  DiskWriter& writer_;
  LiveCounters& counters_;
  BlockHasher hasher_;
  std::optional<ContentHash> hash_;
  LayerHashes layers_;
};

}  // namespace qb
