// Turns rows of any alignment into steps that the target can take: whole units of data, zero or
// skip.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "copy/row.h"

namespace qb {

// A range of whole units (the last may end with the disk). For data, `rows` say where the bytes are
// (there is at least one); gaps between them read as zero.
struct Step {
  enum class Kind : uint8_t { kSkip, kZero, kData };
  Kind kind = Kind::kSkip;
  uint64_t start = 0;   // guest, bytes
  uint64_t length = 0;  // guest, bytes
  std::vector<Row> rows = {};
  // What the layers hold there, one layer after the other, and how much room that takes which no
  // row reads: see layers.h.
  std::vector<Row> own = {};
  uint64_t hidden_bytes = 0;

  bool reads() const { return kind == Kind::kData || hidden_bytes > 0; }
};

// Pure; not thread-safe.
class Assembler {
 public:
  // `unit`: the target's, bytes; `most`: bytes of one data step, a multiple of it. `has_backing`:
  // skipped bytes are not zero, so they cannot share a unit with others.
  Assembler(uint64_t unit, uint64_t most, uint64_t disk_size, bool has_backing);

  // Throws Error(EINVAL) if they do not continue where the last ones ended.
  void feed(const std::vector<Row>& rows);
  // The next step, or nothing until more rows are fed. Throws Error(EINVAL) if a unit is partly
  // skipped over a backing file.
  std::optional<Step> next();
  // True when every byte of the disk went out in a step.
  bool complete() const { return position_ == disk_size_; }

 private:
  bool continues_data() const;
  Step take_data();
  Step take_run();
  void consume(uint64_t bytes);

  uint64_t unit_;
  uint64_t most_;
  uint64_t disk_size_;
  bool has_backing_;
  std::deque<Row> rows_;      // fed and not consumed; the first begins at position_
  uint64_t fed_to_ = 0;       // guest, bytes
  uint64_t position_ = 0;     // guest, bytes
  std::optional<Step> data_;  // the data step being put together
};

}  // namespace qb
