// A flag that poll(2) can wait for, raised from any thread.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

namespace qb {

// Thread-safe.
class EventFd {
 public:
  EventFd() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { check_errno(fd_ >= 0, "eventfd"); }
  ~EventFd() { close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  void raise() { eventfd_write(fd_, 1); }
  void clear() {
    eventfd_t count;
    eventfd_read(fd_, &count);
  }
  // Readable while it is raised.
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace qb
