#include "compare/examiner.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/is_zero.h"
#include "codec/codec.h"

namespace qb {

namespace {

// QEMU reports the offset of a difference in this unit.
constexpr uint64_t kSector = 512;

// Null means zeroes.
bool equal(const uint8_t* a, const uint8_t* b, uint64_t length) {
  if (!a && !b) return true;
  if (!a) return is_zero(b, length);
  if (!b) return is_zero(a, length);
  return memcmp(a, b, length) == 0;
}

const uint8_t* at(const uint8_t* bytes, uint64_t offset) {
  return bytes ? bytes + offset : nullptr;
}

// The bytes of one side, row by row. Rows that lie in one compressed cluster expand it once if they
// follow each other.
class SideBytes {
 public:
  SideBytes(const PairChunk& chunk, unsigned side, BufferPool& pool)
      : chunk_(chunk), side_(side), pool_(pool) {}

  // The bytes of pair `i`, null for zeroes; or why there are none, in `failure`.
  const uint8_t* get(uint32_t i, std::optional<Finding>& failure) {
    const Fetch* fetch = chunk_.fetch_of[side_][i];
    if (!fetch) return nullptr;
    const RowPair& pair = chunk_.pairs[i];
    const Row& row = pair.sides[side_];
    Finding found{FindingKind::kRead, pair.start(), pair.length(), side_, fetch->error};
    if (fetch->error != 0) {
      failure = found;
      return nullptr;
    }
    uint64_t stored = row.compressed() ? row.size : row.length;
    uint64_t from = row.offset - fetch->transfer.offset;
    uint64_t needed = std::min(from + stored, fetch->readable);
    if (from < needed && fetch->transfer.done < needed) {
      found.kind = FindingKind::kShrank;
      failure = found;
      return nullptr;
    }
    const uint8_t* bytes = fetch->memory->data() + from;
    if (!row.compressed()) return bytes;
    if (expand(row, bytes)) return cluster_->data() + row.within;
    found.kind = FindingKind::kDamaged;
    failure = found;
    return nullptr;
  }

 private:
  bool expand(const Row& row, const uint8_t* stream) {
    bool same = cluster_ && row.kind == expanded_.kind && row.file == expanded_.file &&
                row.offset == expanded_.offset && row.size == expanded_.size &&
                row.cluster_size == expanded_.cluster_size;
    if (same) return sound_;
    expanded_ = row;
    cluster_ = pool_.get(row.cluster_size);
    Compression type = row.kind == RowKind::kZstd ? Compression::kZstd : Compression::kDeflate;
    sound_ = decompress(type, stream, row.size, cluster_->data(), row.cluster_size);
    return sound_;
  }

  const PairChunk& chunk_;
  unsigned side_;
  BufferPool& pool_;
  BufferRef cluster_;  // the expansion of `expanded_`, if that is sound
  Row expanded_;
  bool sound_ = false;
};

void add_first_sector(PairChunk& chunk, const RowPair& pair, const uint8_t* a, const uint8_t* b) {
  for (uint64_t done = 0; done < pair.length(); done += kSector) {
    uint64_t length = std::min(kSector, pair.length() - done);
    if (equal(at(a, done), at(b, done), length)) continue;
    chunk.findings.push_back({FindingKind::kDiffers, pair.start() + done, length});
    return;
  }
}

void add_granules(PairChunk& chunk, const RowPair& pair, const uint8_t* a, const uint8_t* b,
                  uint64_t granularity) {
  for (uint64_t from = pair.start(); from < pair.end();) {
    uint64_t granule = round_down(from, granularity);
    uint64_t to = std::min(granule + granularity, pair.end());
    uint64_t offset = from - pair.start();
    if (!equal(at(a, offset), at(b, offset), to - from)) {
      add_finding(chunk.findings, {FindingKind::kDiffers, granule, granularity});
    }
    from = to;
  }
}

}  // namespace

void examine_pairs(PairChunk& chunk, uint64_t granularity, BufferPool& pool) {
  SideBytes sides[2] = {{chunk, 0, pool}, {chunk, 1, pool}};
  for (uint32_t i = 0; i < chunk.pairs.size(); i++) {
    const RowPair& pair = chunk.pairs[i];
    std::optional<Finding> failure;
    const uint8_t* a = sides[0].get(i, failure);
    const uint8_t* b = failure ? nullptr : sides[1].get(i, failure);
    if (failure) {
      chunk.findings.push_back(*failure);
    } else if (equal(a, b, pair.length())) {
      continue;
    } else if (granularity == 0) {
      add_first_sector(chunk, pair, a, b);
    } else {
      add_granules(chunk, pair, a, b, granularity);
    }
    if (granularity == 0) break;
  }
  for (auto& rows : chunk.fetch_of) rows.clear();
  chunk.fetches.clear();
}

}  // namespace qb
