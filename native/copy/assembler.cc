#include "copy/assembler.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"

namespace qb {

Assembler::Assembler(uint64_t unit, uint64_t most, uint64_t disk_size, bool has_backing)
    : unit_(unit), most_(most), disk_size_(disk_size), has_backing_(has_backing) {}

void Assembler::feed(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    if (row.start != fed_to_ || row.length > disk_size_ - fed_to_) {
      throw Error(EINVAL, "order of the plan");
    }
    fed_to_ = row.end();
    if (!rows_.empty() && !row.reads() && rows_.back().kind == row.kind) {
      rows_.back().length += row.length;
    } else {
      rows_.push_back(row);
    }
  }
}

void Assembler::consume(uint64_t bytes) {
  Row& first = rows_.front();
  position_ += bytes;
  if (bytes == first.length) {
    rows_.pop_front();
  } else {
    first = first.slice(bytes, first.length - bytes);
  }
}

std::optional<Step> Assembler::next() {
  while (!rows_.empty()) {
    bool at_unit = position_ % unit_ == 0;
    if (data_ && at_unit && !continues_data()) return take_data();

    const Row& row = rows_.front();
    uint64_t whole = round_down(row.end(), unit_);
    if (row.end() == disk_size_) whole = disk_size_;
    // The rows to come may make it longer.
    if (rows_.size() == 1 && !row.reads() && whole <= position_) return std::nullopt;
    if (at_unit && !row.reads() && whole > position_) return take_run();

    if (!data_) data_ = Step{Step::Kind::kData, position_, 0, {}};
    uint64_t stop = row.reads() ? data_->start + most_ : round_up(position_ + 1, unit_);
    uint64_t take = std::min(stop, row.end()) - position_;
    if (row.reads()) {
      data_->rows.push_back(row.slice(0, take));
    } else if (row.kind == RowKind::kSkip && has_backing_) {
      throw Error(EINVAL, "part of a cluster left to the backing file");
    }
    data_->length += take;
    consume(take);
  }
  if (data_ && position_ == disk_size_) return take_data();
  return std::nullopt;
}

// At a unit's border: whether the next range belongs to the step being assembled.
bool Assembler::continues_data() const {
  const Row& row = rows_.front();
  if (data_->length >= most_) return false;
  return row.reads() || (row.length < unit_ && row.end() != disk_size_);
}

// The step put together. Where small runs of zero and skipped bytes met, it may read nothing.
Step Assembler::take_data() {
  Step step = *std::exchange(data_, std::nullopt);
  if (step.rows.empty()) step.kind = Step::Kind::kZero;
  return step;
}

// The whole units of a first row that is not read.
Step Assembler::take_run() {
  const Row& row = rows_.front();
  uint64_t end = row.end() == disk_size_ ? disk_size_ : round_down(row.end(), unit_);
  Step step{row.kind == RowKind::kZero ? Step::Kind::kZero : Step::Kind::kSkip,
            position_,
            end - position_,
            {}};
  consume(step.length);
  return step;
}

}  // namespace qb
