#include "source/nbd_connecting.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/job_thread.h"

namespace qb {

std::shared_ptr<NbdConnecting> NbdConnecting::start(const NbdAddress& address,
                                                    const std::vector<std::string>& contexts,
                                                    const std::shared_ptr<NbdCancel>& cancel,
                                                    const std::shared_ptr<EventFd>& raised) {
  std::shared_ptr<NbdConnecting> connecting(new NbdConnecting);
  connecting->deadline_ = NbdConnection::Clock::now() + address.timeout;
  auto connect = [=] {
    pthread_setname_np(pthread_self(), "qcow2-nbd-conn");
    std::unique_ptr<NbdConnection> connection;
    std::exception_ptr failure;
    try {
      connection = std::make_unique<NbdConnection>(address, contexts, cancel);
    } catch (...) {
      failure = std::current_exception();
    }
    {
      std::lock_guard lock(connecting->mutex_);
      connecting->connection_ = std::move(connection);
      connecting->failure_ = failure;
    }
    raised->raise();
  };
  start_thread(std::move(connect)).detach();
  return connecting;
}

std::unique_ptr<NbdConnection> NbdConnecting::take() {
  std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  return std::move(connection_);
}

std::unique_ptr<NbdConnection> connect_nbd(const NbdAddress& address,
                                           const std::vector<std::string>& contexts,
                                           const std::shared_ptr<NbdCancel>& cancel) {
  auto raised = std::make_shared<EventFd>();
  auto connecting = NbdConnecting::start(address, contexts, cancel, raised);
  std::unique_ptr<NbdConnection> connection;
  while (!(connection = connecting->take())) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(connecting->deadline() -
                                                                   NbdConnection::Clock::now());
    if (left.count() <= 0) throw Error(ETIMEDOUT, "lookup of the NBD server");
    pollfd fds[] = {{raised->fd(), POLLIN, 0}, {cancel->fd(), POLLIN, 0}};
    if (poll(fds, 2, static_cast<int>(left.count())) < 0 && errno != EINTR) {
      throw Error(errno, "poll");
    }
    if (cancel->cancelled()) throw Error(ECANCELED, "NBD connection");
  }
  connection->wait_ready();
  return connection;
}

}  // namespace qb
