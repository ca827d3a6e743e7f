#include "source/nbd_session.h"

#include <pthread.h>

#include <cerrno>
#include <utility>

#include "base/job_thread.h"

namespace qb {

NbdSession::NbdSession(const NbdAddress& address, const std::vector<std::string>& contexts)
    : address_(address), contexts_(contexts) {}

NbdSession::~NbdSession() = default;

std::shared_ptr<NbdSession> NbdSession::start(const NbdAddress& address,
                                              const std::vector<std::string>& contexts) {
  std::shared_ptr<NbdSession> session(new NbdSession(address, contexts));
  start_thread([session] { session->work(); }).detach();
  return session;
}

void NbdSession::run(Task task, Done done) {
  {
    std::lock_guard lock(mutex_);
    if (!closed_) {
      tasks_.emplace_back(std::move(task), std::move(done));
      wake_.notify_one();
      return;
    }
  }
  done(std::make_exception_ptr(Error(ECANCELED, "NBD connection")));
}

NbdExport NbdSession::info() const {
  std::lock_guard lock(mutex_);
  if (closed_ || !status_) throw Error(EBADF, "NBD connection");
  return status_->info();
}

void NbdSession::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  cancel_->cancel();
  wake_.notify_one();
}

std::unique_ptr<NbdConnection> NbdSession::take() {
  std::lock_guard lock(mutex_);
  if (closed_ || !status_ || busy_ || !tasks_.empty()) throw Error(EBADF, "NBD connection");
  auto connection = status_->release_connection();
  closed_ = true;
  wake_.notify_one();
  return connection;
}

void NbdSession::work() noexcept {
  pthread_setname_np(pthread_self(), "qcow2-nbd-plan");
  std::unique_ptr<NbdStatus> connected;
  std::exception_ptr failure;
  try {
    connected = std::make_unique<NbdStatus>(address_, contexts_, cancel_);
  } catch (...) {
    failure = std::current_exception();
  }
  std::unique_lock lock(mutex_);
  status_ = std::move(connected);
  while (true) {
    wake_.wait(lock, [&] { return closed_ || !tasks_.empty(); });
    if (tasks_.empty()) break;
    auto [task, done] = std::move(tasks_.front());
    tasks_.pop_front();
    std::exception_ptr result = failure;
    if (!result && closed_) {
      result = std::make_exception_ptr(Error(ECANCELED, "NBD connection"));
    }
    if (!result) {
      busy_ = true;
      lock.unlock();
      try {
        task(*status_);
      } catch (...) {
        result = std::current_exception();
      }
      lock.lock();
      busy_ = false;
    }
    lock.unlock();
    done(result);
    lock.lock();
  }
  // Closes the connection, which may write to it.
  auto ended = std::move(status_);
  lock.unlock();
}

}  // namespace qb
