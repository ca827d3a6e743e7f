#include "source/nbd_connection.h"

#include <poll.h>

#include <cerrno>
#include <utility>

namespace qb {

NbdError nbd_error() {
  const NbdLibrary& nbd = nbd_library();
  int errnum = nbd.get_errno();
  const char* words = nbd.get_error();
  return NbdError(errnum != 0 ? errnum : EIO, words ? words : "NBD");
}

NbdConnection::NbdConnection(const NbdAddress& address, const std::vector<std::string>& contexts)
    : nbd_(nbd_library()), handle_(nbd_.create()), timeout_(address.timeout) {
  if (!handle_) throw nbd_error();
  try {
    // Names keys and certificates of the user's own machine; the URI is the user's.
    nbd_.set_uri_allow_local_file(handle_, true);
    // Memory of a read that failed is not looked at.
    nbd_.set_pread_initialize(handle_, false);
    for (const std::string& context : contexts) {
      if (nbd_.add_meta_context(handle_, context.c_str()) != 0) throw nbd_error();
    }
    if (nbd_.aio_connect_uri(handle_, address.uri.c_str()) != 0) throw nbd_error();
    wait_until([this] { return nbd_.aio_is_ready(handle_) == 1; });
  } catch (...) {
    nbd_.close(handle_);
    throw;
  }
}

NbdConnection::NbdConnection(NbdConnection&& other) noexcept
    : nbd_(other.nbd_), handle_(std::exchange(other.handle_, nullptr)), timeout_(other.timeout_) {}

NbdConnection::~NbdConnection() {
  if (!handle_) return;
  if (alive()) nbd_.aio_disconnect(handle_, 0);
  nbd_.close(handle_);
}

int NbdConnection::fd() const {
  return nbd_.aio_get_fd(handle_);
}

short NbdConnection::events() const {
  unsigned direction = nbd_.aio_get_direction(handle_);
  return static_cast<short>((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                            (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

// The direction is asked again before writing: reading may have changed what libnbd waits for.
bool NbdConnection::notify(short revents) {
  if ((revents & (POLLIN | POLLHUP | POLLERR)) &&
      (nbd_.aio_get_direction(handle_) & LIBNBD_AIO_DIRECTION_READ)) {
    if (nbd_.aio_notify_read(handle_) != 0) return false;
  }
  if ((revents & (POLLOUT | POLLHUP | POLLERR)) &&
      (nbd_.aio_get_direction(handle_) & LIBNBD_AIO_DIRECTION_WRITE)) {
    if (nbd_.aio_notify_write(handle_) != 0) return false;
  }
  return alive();
}

bool NbdConnection::alive() const {
  return nbd_.aio_is_dead(handle_) != 1 && nbd_.aio_is_closed(handle_) != 1;
}

void NbdConnection::wait_until(const std::function<bool()>& done) {
  auto deadline = Clock::now() + timeout_;
  while (!done()) {
    if (!alive()) throw nbd_error();
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) throw Error(ETIMEDOUT, "answer of the NBD server");
    pollfd poll_fd{fd(), events(), 0};
    int rc = poll(&poll_fd, 1, static_cast<int>(left.count()));
    if (rc < 0 && errno != EINTR) throw Error(errno, "poll");
    if (rc > 0 && !notify(poll_fd.revents) && !done()) throw nbd_error();
  }
}

}  // namespace qb
