// Fails or shortens chosen requests. Reap all of them before it ends.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "support/wrapped_engine.h"

namespace qb::test {

// What happens to a request instead of what should: an errno, or only its first bytes.
struct Fault {
  int errnum = 0;
  uint64_t bytes = 0;  // looked at when errnum is 0; 0 bytes are the result 0
};

class FaultEngine final : public WrappedEngine {
 public:
  // Is asked for every request, with how many came before it.
  using Plan = std::function<std::optional<Fault>(size_t index, const Request& request)>;

  // The plan that hits just the request `index`.
  static Plan nth(size_t index, Fault fault) {
    return [=](size_t i, const Request&) {
      return i == index ? std::optional<Fault>(fault) : std::nullopt;
    };
  }

  FaultEngine(std::unique_ptr<Engine> inner, Plan plan)
      : WrappedEngine(std::move(inner)), plan_(std::move(plan)) {}

  // Requests seen, the resubmitted ones among them.
  size_t count() const { return count_; }

  void submit(Request* request) override {
    const std::optional<Fault> fault = plan_(count_++, *request);
    if (!fault) {
      WrappedEngine::submit(request);
    } else if (fault->errnum != 0) {
      answer(request, -fault->errnum);
    } else if (fault->bytes == 0) {
      answer(request, 0);
    } else {
      WrappedEngine::submit(shortened(*request, fault->bytes));
    }
  }
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override {
    const size_t before = done.size();
    WrappedEngine::reap(done, wait, deadline);
    for (size_t i = before; i < done.size(); ++i) done[i] = original(done[i]);
  }

 private:
  struct Short {
    Request inner;
    Request* outer;
  };

  Request* shortened(Request& request, uint64_t bytes) {
    shorts_.push_back({request, &request});
    Request& inner = shorts_.back().inner;
    inner.iov.clear();
    for (iovec part : request.iov) {
      part.iov_len = std::min<uint64_t>(part.iov_len, bytes);
      bytes -= part.iov_len;
      if (part.iov_len > 0) inner.iov.push_back(part);
    }
    return &inner;
  }

  Request* original(Request* request) {
    const auto found = std::find_if(shorts_.begin(), shorts_.end(),
                                    [&](const Short& s) { return &s.inner == request; });
    if (found == shorts_.end()) return request;
    Request* outer = found->outer;
    outer->result = request->result;
    shorts_.erase(found);
    return outer;
  }

  Plan plan_;
  std::list<Short> shorts_;
  size_t count_ = 0;
};

}  // namespace qb::test
