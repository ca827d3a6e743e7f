// Checks that every request goes to the file that it was made for.
#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "support/wrapped_engine.h"

namespace qb::test {

// A descriptor's number is used again as soon as it is closed. So each must be open, and be the
// file that it was when a request first named it, whenever a request is handed over and until it
// comes back. What is not so is counted in `wrong`, which outlives the engine.
class DescriptorEngine final : public WrappedEngine {
 public:
  DescriptorEngine(std::unique_ptr<Engine> inner, size_t& wrong)
      : WrappedEngine(std::move(inner)), wrong_(wrong) {}

  void submit(Request* request) override {
    check(request->fd);
    in_flight_[request->fd]++;
    WrappedEngine::submit(request);
  }
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override {
    // Of all that are with the kernel, not only of those that come back.
    for (const auto& [fd, count] : in_flight_) {
      if (count > 0) check(fd);
    }
    const size_t before = done.size();
    WrappedEngine::reap(done, wait, deadline);
    for (size_t i = before; i < done.size(); ++i) {
      check(done[i]->fd);
      in_flight_[done[i]->fd]--;
    }
  }

 private:
  struct Identity {
    dev_t device;
    ino_t inode;
    bool operator==(const Identity&) const = default;
  };

  void check(int fd) {
    struct stat info {};
    if (fstat(fd, &info) != 0) {
      ++wrong_;
      return;
    }
    const Identity now{info.st_dev, info.st_ino};
    if (known_.emplace(fd, now).first->second != now) ++wrong_;
  }

  size_t& wrong_;
  std::map<int, Identity> known_;
  std::map<int, size_t> in_flight_;
};

}  // namespace qb::test
