// The power cut: after so many writes the file stays as it is.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "support/wrapped_engine.h"

namespace qb::test {

// The first `writes` writes reach the file, in the order of submission. Later ones, and syncs after
// them, do not, and are answered with `errnum`, or as if they had when it is 0. Reads go on.
class StopEngine final : public WrappedEngine {
 public:
  StopEngine(std::unique_ptr<Engine> inner, size_t writes, int errnum = 0)
      : WrappedEngine(std::move(inner)), left_(writes), errnum_(errnum) {}

  // Whether a write was held back.
  bool stopped() const { return stopped_; }

  void submit(Request* request) override {
    if (request->op == Op::kWrite) {
      if (left_ > 0) {
        --left_;
      } else {
        stopped_ = true;
      }
    }
    if (request->op == Op::kRead || !stopped_) {
      WrappedEngine::submit(request);
    } else {
      answer(request, errnum_ != 0 ? -errnum_ : static_cast<int64_t>(length_of(*request)));
    }
  }

 private:
  size_t left_;
  int errnum_;
  bool stopped_ = false;
};

}  // namespace qb::test
