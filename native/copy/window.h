// The chunks that are under way, in guest order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "copy/chunk.h"

namespace qb {

// Not thread-safe. A chunk stays where it is until it is dropped.
class Window {
 public:
  bool empty() const { return chunks_.empty(); }
  // True when no more should be added: memory bounds chunks of data long before, but steps without
  // data take no buffers.
  bool full() const { return chunks_.size() >= kMaxChunks || rows_ >= kMaxRows; }

  Chunk& add(Step step) {
    auto chunk = std::make_unique<Chunk>();
    chunk->step = std::move(step);
    rows_ += rows_of(*chunk);
    chunks_.push_back(std::move(chunk));
    return *chunks_.back();
  }
  // The first in the guest. REQUIRES: not empty.
  Chunk& head() { return *chunks_.front(); }
  void drop_head() {
    rows_ -= rows_of(head());
    chunks_.pop_front();
  }
  // The chunk that begins there, if its read failed and it waits for a decision.
  Chunk* find_failed(uint64_t start) const {
    for (const auto& chunk : chunks_) {
      bool waits = chunk->failure && chunk->reads_left == 0;
      if (waits && chunk->step.start == start) return chunk.get();
    }
    return nullptr;
  }

 private:
  // As many as the reads that are allowed can need between them, by far.
  static constexpr size_t kMaxChunks = 8192;
  static constexpr size_t kMaxRows = 65536;

  static size_t rows_of(const Chunk& chunk) {
    return chunk.step.rows.size() + chunk.step.own.size();
  }

  std::deque<std::unique_ptr<Chunk>> chunks_;
  size_t rows_ = 0;  // of their steps
};

}  // namespace qb
