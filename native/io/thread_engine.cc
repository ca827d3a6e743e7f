#include "io/thread_engine.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/job_thread.h"

namespace qb {
namespace {

// Direct random reads of 64 KiB on a virtual disk: 193 MiB/s with one thread, 390 with 4, 430 to
// 600 with 8, 540 to 700 with 16, and no more with 32 or 64, which only cost memory.
constexpr unsigned kMostThreads = 16;

int64_t transfer(const Request& request) {
  const auto count = static_cast<int>(request.iov.size());
  const auto offset = static_cast<off_t>(request.offset);
  int64_t result = -1;
  switch (request.op) {
    case Op::kRead:
      result = preadv(request.fd, request.iov.data(), count, offset);
      break;
    case Op::kWrite:
      result = pwritev(request.fd, request.iov.data(), count, offset);
      break;
    case Op::kSync:
      result = fdatasync(request.fd);
      break;
    case Op::kZero:
      return -EINVAL;
  }
  return result < 0 ? -errno : result;
}

// Blocks all signals while it lives, so that threads started meanwhile leave them to the others.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

ThreadEngine::ThreadEngine(unsigned depth) {
  const unsigned count = std::clamp(depth, 1U, kMostThreads);
  // No worker allocates memory: it could not report a failure.
  done_.reserve(depth);
  const SignalsBlocked blocked;
  try {
    for (unsigned i = 0; i < count; ++i) workers_.push_back(start_thread([this] { work(); }));
  } catch (const Error&) {
    // Fewer threads do the same, slower.
    if (workers_.empty()) throw;
  }
}

ThreadEngine::~ThreadEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  todo_changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadEngine::submit(Request* request) {
  {
    const std::lock_guard lock(mutex_);
    todo_.push_back(request);
  }
  todo_changed_.notify_one();
}

void ThreadEngine::reap(std::vector<Request*>& done, bool wait,
                        std::optional<Clock::time_point> deadline) {
  std::unique_lock lock(mutex_);
  if (wait) {
    const auto ready = [this] { return !done_.empty() || woken_; };
    if (deadline) {
      done_changed_.wait_until(lock, *deadline, ready);
    } else {
      done_changed_.wait(lock, ready);
    }
    woken_ = false;
  }
  done.insert(done.end(), done_.begin(), done_.end());
  done_.clear();
}

void ThreadEngine::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  done_changed_.notify_one();
}

// The top of each worker. Ends when asked to and nothing is left to do.
void ThreadEngine::work() {
  pthread_setname_np(pthread_self(), "qcow2-io");
  std::unique_lock lock(mutex_);
  for (;;) {
    todo_changed_.wait(lock, [this] { return !todo_.empty() || stopping_; });
    if (todo_.empty()) return;
    Request* request = todo_.front();
    todo_.pop_front();
    lock.unlock();
    const int64_t result = transfer(*request);
    lock.lock();
    request->result = result;
    done_.push_back(request);
    done_changed_.notify_one();
  }
}

}  // namespace qb
