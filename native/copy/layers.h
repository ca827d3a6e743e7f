// What the images of a chain hold themselves, beside the disk that they make together: where the
// chain is copied into one image, the hash of each of them is taken on the way, from what is read
// for the disk and the rest of it, which is read, too.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "copy/assembler.h"
#include "copy/row.h"
#include "copy/spec.h"

namespace qb {

// Gives the steps of the disk the rows of the layers. Not thread-safe.
class Layers {
 public:
  // `unit`: the target's, bytes, which is also that of all layers; `most`: bytes of one layer that
  // are read at a time.
  Layers(const CopySpec& spec, uint64_t unit, uint64_t most);

  // Takes the rows of layers out of a batch; those of each layer are contiguous from 0 to the size
  // of the disk. Throws Error(EINVAL) if they are not, or not in whole units.
  void take(std::vector<Row>& rows);
  // Fills in `own` and `hidden_bytes` of a step, and cuts it where layers have more to read in it
  // than should be at a time. Returns the rest. REQUIRES: the rows of all layers were taken as far
  // as the step reaches; else throws Error(EINVAL).
  std::optional<Step> attach(Step& step);

 private:
  struct Layer {
    uint32_t file;
    std::deque<Row> rows;  // taken and not given to a step
    uint64_t taken_to = 0;
  };

  void check(const Row& row) const;
  uint64_t length_for(const Step& step) const;
  static void give(Layer& layer, Step& step);

  uint64_t size_;
  uint64_t unit_;
  uint64_t most_;
  std::vector<Layer> layers_;
};

}  // namespace qb
