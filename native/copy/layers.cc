#include "copy/layers.h"

#include <algorithm>
#include <cerrno>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/error.h"
#include "copy/content_hash.h"

namespace qb {

namespace {

Error bad_rows() {
  return {EINVAL, "rows of a layer"};
}

// Appends a part of what a layer holds, cut at the borders of what the rows of the step, from
// `next` on, read of it.
void add_own(const Row& row, size_t& next, Step& step) {
  auto add = [&](uint64_t from, uint64_t to, bool hidden) {
    Row part = row.slice(from - row.start, to - from);
    if (hidden) {
      part.hidden = true;
      part.place = step.hidden_bytes;
      // So that it can be read past the page cache.
      step.hidden_bytes += round_up(part.length, kPage);
    }
    step.own.push_back(part);
  };
  uint64_t at = row.start;
  for (; next < step.rows.size() && at < row.end(); next++) {
    const Row& read = step.rows[next];
    if (read.file != row.file || read.end() <= at) continue;
    if (read.start >= row.end()) break;
    if (read.start > at) add(at, read.start, true);
    at = std::max(at, read.start);
    uint64_t end = std::min(read.end(), row.end());
    add(at, end, false);
    at = end;
    if (read.end() > row.end()) break;
  }
  if (at < row.end()) add(at, row.end(), true);
}

}  // namespace

Layers::Layers(const CopySpec& spec, uint64_t unit, uint64_t most)
    : size_(spec.size), unit_(unit), most_(most) {
  for (const LayerHash& layer : spec.layers) layers_.push_back({.file = layer.file, .rows = {}});
}

void Layers::check(const Row& row) const {
  bool whole = row.start % unit_ == 0 && (row.end() % unit_ == 0 || row.end() == size_);
  // Parts of one compressed cluster would be rows of their own.
  if (!whole) throw bad_rows();
}

void Layers::take(std::vector<Row>& rows) {
  for (const Row& row : rows) {
    if (!row.own) continue;
    auto layer = std::find_if(layers_.begin(), layers_.end(),
                              [&](const Layer& one) { return one.file == row.file; });
    if (layer == layers_.end() || row.start != layer->taken_to) throw bad_rows();
    if (row.length > size_ - row.start) throw bad_rows();
    check(row);
    layer->taken_to = row.end();
    std::deque<Row>& known = layer->rows;
    if (!known.empty() && !row.reads() && known.back().kind == row.kind) {
      known.back().length += row.length;
    } else {
      known.push_back(row);
    }
  }
  std::erase_if(rows, [](const Row& row) { return row.own; });
}

std::optional<Step> Layers::attach(Step& step) {
  if (layers_.empty()) return std::nullopt;
  for (const Layer& layer : layers_) {
    if (layer.taken_to < step.start + step.length) throw bad_rows();
  }
  std::optional<Step> rest;
  uint64_t length = length_for(step);
  if (length < step.length) {
    rest = Step{step.kind, step.start + length, step.length - length};
    step.length = length;
  }
  for (Layer& layer : layers_) give(layer, step);
  return rest;
}

// Steps of data are short. Of others, as much as can be dealt with at a time: up to where a layer
// has something to read, or that.
uint64_t Layers::length_for(const Step& step) const {
  if (step.kind == Step::Kind::kData) return step.length;
  uint64_t quiet = std::min(step.length, ContentHash::kMostAtOnce);
  for (const Layer& layer : layers_) {
    for (const Row& row : layer.rows) {
      if (row.start >= step.start + quiet) break;
      if (row.reads()) quiet = std::max(row.start, step.start) - step.start;
    }
  }
  return quiet > 0 ? quiet : std::min(step.length, most_);
}

// Moves the rows of a layer in the range of a step over to it.
void Layers::give(Layer& layer, Step& step) {
  uint64_t end = step.start + step.length;
  size_t next = 0;
  while (!layer.rows.empty() && layer.rows.front().start < end) {
    Row row = layer.rows.front();
    if (row.end() > end) {
      layer.rows.front() = row.slice(end - row.start, row.end() - end);
      row = row.slice(0, end - row.start);
    } else {
      layer.rows.pop_front();
    }
    if (row.reads()) {
      add_own(row, next, step);
    } else {
      step.own.push_back(row);
    }
  }
}

}  // namespace qb
