#include "base/workers.h"

#include <pthread.h>

#include <utility>

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
  if (threads_.size() < wanted_) threads_.emplace_back([this] { run(); });
  ready_.notify_one();
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
