// Ends what is under way on a connection, from any thread.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>

#include "base/error.h"

namespace qb {

// Thread-safe. Once cancelled it stays so.
class NbdCancel {
 public:
  NbdCancel() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { check_errno(fd_ >= 0, "eventfd"); }
  ~NbdCancel() { close(fd_); }
  NbdCancel(const NbdCancel&) = delete;
  NbdCancel& operator=(const NbdCancel&) = delete;

  void cancel() {
    cancelled_ = true;
    eventfd_write(fd_, 1);
  }
  bool cancelled() const { return cancelled_; }
  // Readable for poll(2) once it is cancelled.
  int fd() const { return fd_; }

 private:
  int fd_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace qb
