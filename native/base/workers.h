// Threads for work that is all CPU: decompression and compression of clusters.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qb {

// Runs tasks on `threads` threads, started with the first task. Thread-safe. Tasks must not throw.
class Workers {
 public:
  explicit Workers(unsigned threads);
  // Waits for the running tasks; those not started are dropped.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Throws Error when not a single thread can be started.
  void submit(std::function<void()> task);

 private:
  void run();
  void start_thread();

  unsigned wanted_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

}  // namespace qb
