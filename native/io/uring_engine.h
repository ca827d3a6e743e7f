// The engine over io_uring.
#pragma once

#include <liburing.h>

#include <optional>
#include <vector>

#include "io/engine.h"

namespace qb {

// One ring. submit() only queues; reap() hands everything queued to the kernel in one call.
class UringEngine final : public Engine {
 public:
  // Throws Error when the kernel has no io_uring for us (EPERM, ENOSYS, ENOMEM …), or too old a
  // one.
  explicit UringEngine(unsigned depth);
  ~UringEngine() override;  // NOLINT(bugprone-exception-escape): said why where it is defined
  UringEngine(const UringEngine&) = delete;
  UringEngine& operator=(const UringEngine&) = delete;

  const char* name() const override { return "io_uring"; }
  void submit(Request* request) override;
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override;
  void wake() override;

 private:
  io_uring_sqe* next_sqe();
  void arm_wake();
  void enter(bool block, std::optional<Clock::time_point> deadline);
  void collect(std::vector<Request*>& done);

  io_uring ring_{};
  int wake_fd_ = -1;
  bool woken_ = false;    // wake() was seen and no waiting reap() has returned for it yet
  size_t in_flight_ = 0;  // requests submitted and not yet collected
};

}  // namespace qb
