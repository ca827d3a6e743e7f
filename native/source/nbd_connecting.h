// Starts a connection without blocking the caller: libnbd looks up the host's name before it
// returns, and nothing can interrupt that.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "source/event_fd.h"
#include "source/nbd_connection.h"

namespace qb {

// Thread-safe. Its thread keeps it alive, and ends on its own when the name was looked up;
// an abandoned connection is closed then. So it runs code that must not be unloaded.
class NbdConnecting {
 public:
  // As the constructor of NbdConnection. `raised` is raised when take() has something. Throws
  // Error(EAGAIN) if no thread can be started.
  static std::shared_ptr<NbdConnecting> start(const NbdAddress& address,
                                              const std::vector<std::string>& contexts,
                                              const std::shared_ptr<NbdCancel>& cancel,
                                              const std::shared_ptr<EventFd>& raised);

  // The connection, which is to be made ready from then on, once; null before there is one. Throws
  // as the constructor of NbdConnection.
  std::unique_ptr<NbdConnection> take();
  // When the connection must be ready.
  NbdConnection::Clock::time_point deadline() const { return deadline_; }

 private:
  NbdConnecting() = default;

  NbdConnection::Clock::time_point deadline_;
  std::mutex mutex_;  // guards the rest
  std::unique_ptr<NbdConnection> connection_;
  std::exception_ptr failure_;
};

// A connection that is ready. Throws as NbdConnection and its wait_ready().
std::unique_ptr<NbdConnection> connect_nbd(const NbdAddress& address,
                                           const std::vector<std::string>& contexts,
                                           const std::shared_ptr<NbdCancel>& cancel);

}  // namespace qb
