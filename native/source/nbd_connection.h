// One connection to an NBD server, without blocking but for what the caller waits for.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "source/nbd_library.h"

namespace qb {

struct NbdAddress {
  std::string uri;  // as libnbd takes it: nbd://, nbds://, nbd+unix://, nbds+unix://
  // How long a connection may take to be made, or go without an answer.
  std::chrono::milliseconds timeout{30000};
};

// What the server refused or answered; `errnum` as NBD has it.
class NbdError : public Error {
 public:
  using Error::Error;
};

// Not thread-safe: one thread at a time, any (libnbd reports errors by thread).
class NbdConnection {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects and negotiates. Throws Error(ELIBACC) without libnbd, NbdError (the words are
  // libnbd's) when it can't, Error(ETIMEDOUT).
  NbdConnection(const NbdAddress& address, const std::vector<std::string>& contexts);
  // The other has no handle() any more, and is only fit to be destroyed. Not while a request of its
  // is waited for.
  NbdConnection(NbdConnection&& other) noexcept;
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  nbd_handle* handle() const { return handle_; }
  // What to wait for with poll(2).
  int fd() const;
  short events() const;
  // Lets libnbd work on what poll said. False once the connection is gone.
  bool notify(short revents);
  bool alive() const;

  // Waits until `done` says so. Throws NbdError when the connection is lost, Error(ETIMEDOUT) when
  // the server is silent for longer than the timeout.
  void wait_until(const std::function<bool()>& done);

 private:
  const NbdLibrary& nbd_;
  nbd_handle* handle_;
  std::chrono::milliseconds timeout_;
};

// The calling thread's last error of libnbd.
NbdError nbd_error();

}  // namespace qb
