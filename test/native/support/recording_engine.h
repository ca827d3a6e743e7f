// Keeps the exact list of what was asked of the engine inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "support/wrapped_engine.h"

namespace qb::test {

class RecordingEngine final : public WrappedEngine {
 public:
  struct Record {
    Op op = Op::kRead;
    int fd = -1;
    uint64_t offset = 0;    // bytes
    uint64_t length = 0;    // bytes
    size_t unfinished = 0;  // requests not yet reaped when this one came: 0 is what a sync wants

    bool operator==(const Record&) const = default;
  };

  // `records` outlives the engine, so that it can be looked at when the engine is gone.
  RecordingEngine(std::unique_ptr<Engine> inner, std::vector<Record>& records)
      : WrappedEngine(std::move(inner)), records_(records) {}

  void submit(Request* request) override {
    records_.push_back(
        {request->op, request->fd, request->offset, length_of(*request), unfinished_});
    ++unfinished_;
    WrappedEngine::submit(request);
  }
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override {
    const size_t before = done.size();
    WrappedEngine::reap(done, wait, deadline);
    unfinished_ -= done.size() - before;
  }

 private:
  std::vector<Record>& records_;
  size_t unfinished_ = 0;
};

}  // namespace qb::test
