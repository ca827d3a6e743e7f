// One connection to an NBD server; blocks only where the caller waits.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "source/nbd_cancel.h"
#include "source/nbd_library.h"
#include "source/nbd_pace.h"

namespace qb {

struct NbdAddress {
  std::string uri;  // as libnbd takes it: nbd://, nbds://, nbd+unix://, nbds+unix://
  // How long a connection may take to be made, or go without getting on with an answer.
  std::chrono::milliseconds timeout{30000};
};

// An error reply of the server; `errnum` as NBD has it.
class NbdError : public Error {
 public:
  using Error::Error;
};

// Not thread-safe: one thread at a time, any (libnbd reports errors by thread).
class NbdConnection {
 public:
  using Clock = std::chrono::steady_clock;

  // Starts to connect and negotiate, which goes on in notify() until it is ready(). A host's name
  // is looked up before this returns: NbdConnecting does that where nobody is kept waiting.
  // `contexts`: metadata contexts to ask for; one that ends in a colon means the only one that the
  // server has below that, and which it is contexts() says once the connection is ready.
  // `cancel`: ends any wait. Throws Error(ELIBACC) without libnbd, NbdError (the
  // words are libnbd's).
  NbdConnection(const NbdAddress& address, const std::vector<std::string>& contexts,
                std::shared_ptr<NbdCancel> cancel);
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  nbd_handle* handle() const { return handle_; }
  // In the order in which they were given; one that the server does not have, or has several of,
  // stays as it was given.
  const std::vector<std::string>& contexts() const { return contexts_; }
  // Events to wait for with poll(2).
  int fd() const;
  short events() const;
  // Passes poll's events to libnbd. False once the connection is gone; lost() says why.
  bool notify(short revents);
  bool alive() const;
  // Whether requests can be sent. Throws NbdError if the server's description of its export is
  // impossible.
  bool ready();
  // When it must be ready.
  Clock::time_point connect_deadline() const;
  // Why the connection is gone; ETIMEDOUT if it was closed because it took too long to be made.
  Error lost() const;
  // For judging whether the line moves.
  const NbdFlow& flow();

  // Waits until it is ready. Throws NbdError, Error(ETIMEDOUT), Error(ECANCELED).
  void wait_ready();
  // Waits until `done` says so, for a request of at most `most` bytes either way. Throws NbdError
  // when the connection is lost, Error(ETIMEDOUT) when the server does not get on, Error(EPROTO)
  // when its answer never ends, Error(ECANCELED).
  // `soon`: until when to wait; false if that came first.
  bool wait_until(const std::function<bool()>& done, uint64_t most,
                  Clock::time_point soon = Clock::time_point::max());

 private:
  struct Guard;
  struct Negotiation;

  void negotiate();
  void wait_for_socket(Clock::time_point deadline);

  const NbdLibrary& nbd_;
  nbd_handle* handle_;
  std::chrono::milliseconds timeout_;
  std::shared_ptr<NbdCancel> cancel_;
  std::vector<std::string> contexts_;
  std::unique_ptr<Guard> guard_;              // until it is ready
  std::unique_ptr<Negotiation> negotiation_;  // until then, if contexts have to be found
  Error lost_;
  NbdFlow flow_;
  int unsent_ = 0;  // bytes in the socket's buffer when last looked at
};

// The calling thread's last error of libnbd.
NbdError nbd_error();

}  // namespace qb
