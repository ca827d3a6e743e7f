// Cancels the requests under way on a connection, from any thread.
#pragma once

#include <atomic>

#include "source/event_fd.h"

namespace qb {

// Thread-safe. Once cancelled it stays so.
class NbdCancel {
 public:
  void cancel() {
    cancelled_ = true;
    event_.raise();
  }
  bool cancelled() const { return cancelled_; }
  // Readable for poll(2) once it is cancelled.
  int fd() const { return event_.fd(); }

 private:
  EventFd event_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace qb
