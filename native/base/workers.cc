#include "base/workers.h"

#include <pthread.h>

#include <utility>

#include "base/error.h"
#include "base/job_thread.h"

namespace qb {

Workers::Workers(unsigned threads) : wanted_(threads) {}

Workers::~Workers() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    tasks_.clear();
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::submit(std::function<void()> task) {
  std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  if (threads_.size() < wanted_) start_thread();
  ready_.notify_one();
}

// Fewer threads do the same, slower; with none at all the last task would never be done.
void Workers::start_thread() {
  try {
    threads_.push_back(qb::start_thread([this] { run(); }));
  } catch (const Error&) {
    if (threads_.empty()) {
      tasks_.pop_back();
      throw;
    }
    wanted_ = static_cast<unsigned>(threads_.size());
  }
}

void Workers::run() {
  pthread_setname_np(pthread_self(), "qcow2-cpu");
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace qb
