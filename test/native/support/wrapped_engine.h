// What the engines for tests have in common: everything goes to the engine inside.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "io/engine.h"

namespace qb::test {

// The bytes a request is about.
inline uint64_t length_of(const Request& request) {
  uint64_t length = 0;
  for (const iovec& part : request.iov) length += part.iov_len;
  return length;
}

class WrappedEngine : public Engine {
 public:
  explicit WrappedEngine(std::unique_ptr<Engine> inner) : inner_(std::move(inner)) {}

  const char* name() const override { return inner_->name(); }
  void submit(Request* request) override { inner_->submit(request); }
  // Requests that never reach the engine inside are handed back first, without waiting.
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override {
    wait = wait && answered_.empty();
    done.insert(done.end(), answered_.begin(), answered_.end());
    answered_.clear();
    inner_->reap(done, wait, deadline);
  }
  void wake() override { inner_->wake(); }

 protected:
  // Ends `request` here, with `result`.
  void answer(Request* request, int64_t result) {
    request->result = result;
    answered_.push_back(request);
  }

 private:
  std::unique_ptr<Engine> inner_;
  std::vector<Request*> answered_;
};

}  // namespace qb::test
