// Parameters of a comparison.
#pragma once

#include <cstdint>
#include <vector>

#include "copy/spec.h"
#include "io/make_engine.h"

namespace qb {

struct CompareSpec {
  // Of both sides; rows name them by index. No caller's reads.
  std::vector<CopySource> sources;
  EngineKind engine = EngineKind::kAuto;
  Direct direct = Direct::kAuto;
  unsigned requests = 32;    // reads in flight
  uint64_t memory = 0;       // bytes that the reads take
  uint64_t granularity = 0;  // bytes of a finding, see examine_pairs(); 0: it ends with the first
};

}  // namespace qb
