// The engine over threads with preadv(2), pwritev(2) and fdatasync(2), where io_uring is refused.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "io/engine.h"

namespace qb {

class ThreadEngine final : public Engine {
 public:
  // Throws Error when not a single thread can be started.
  explicit ThreadEngine(unsigned depth);
  ~ThreadEngine() override;
  ThreadEngine(const ThreadEngine&) = delete;
  ThreadEngine& operator=(const ThreadEngine&) = delete;

  const char* name() const override { return "threads"; }
  void submit(Request* request) override;
  void reap(std::vector<Request*>& done, bool wait,
            std::optional<Clock::time_point> deadline) override;
  void wake() override;

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable todo_changed_;  // for the workers
  std::condition_variable done_changed_;  // for reap()
  std::deque<Request*> todo_;
  std::vector<Request*> done_;
  bool woken_ = false;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace qb
