// A planning connection with a thread of its own: a server that is silent keeps nobody else
// waiting.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "source/nbd_status.h"

namespace qb {

// Thread-safe. The thread holds on to the session, and ends by itself soon after close(): nobody
// waits for it. So it runs code that must not be unloaded.
class NbdSession : public std::enable_shared_from_this<NbdSession> {
 public:
  using Task = std::function<void(NbdStatus&)>;
  // Called on the session's thread, with the failure if there is one; never after close() has
  // made that impossible for it to matter: it is called once for each task in any case.
  using Done = std::function<void(std::exception_ptr)>;

  // Starts the thread, which connects. Throws Error.
  static std::shared_ptr<NbdSession> start(const NbdAddress& address,
                                           const std::vector<std::string>& contexts);
  ~NbdSession();
  NbdSession(const NbdSession&) = delete;
  NbdSession& operator=(const NbdSession&) = delete;

  // Runs a task on the thread once it is connected, after those before it. `done` gets
  // Error(ECANCELED) if the session was closed before, and the error of connecting.
  void run(Task task, Done done);
  // The server's description. Throws Error(EBADF) before the first task was run, and after close().
  NbdExport info() const;
  // Cancels everything under way.
  void close();
  // Takes the connection out, which closes the session. Throws Error(EBADF) if there is none, or
  // something is under way.
  std::unique_ptr<NbdConnection> take();

 private:
  NbdSession(const NbdAddress& address, const std::vector<std::string>& contexts);
  void work() noexcept;

  NbdAddress address_;
  std::vector<std::string> contexts_;
  std::shared_ptr<NbdCancel> cancel_ = std::make_shared<NbdCancel>();

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::deque<std::pair<Task, Done>> tasks_;
  bool busy_ = false;  // the thread uses `status_`
  bool closed_ = false;
  std::unique_ptr<NbdStatus> status_;
};

}  // namespace qb
