// JavaScript's handle of a planning connection: promises for the work of its thread.
#pragma once

#include <napi.h>

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "source/nbd_session.h"

namespace qb {

// Lives on the JavaScript thread, but for arrived(). Kept alive by itself until nothing that
// `changed_` was called for is on its way any more: JavaScript may have released it before.
class NbdHandle : public std::enable_shared_from_this<NbdHandle> {
 public:
  // Converts a task's result into a value, on the JavaScript thread.
  using Result = std::function<Napi::Value(Napi::Env)>;

  // Starts to connect. Throws Napi::Error, Error.
  static std::shared_ptr<NbdHandle> open(Napi::Env env, const NbdAddress& address,
                                         const std::vector<std::string>& contexts);

  // One at a time, in order. The promise is rejected with code ECANCELED by close().
  Napi::Promise run(NbdSession::Task task, Result result);
  // Throws Error(EBADF) if it is not connected, or was closed.
  NbdExport info() const { return session_->info(); }
  // Cancels everything under way.
  void close();
  // Once nothing is under way any more.
  void close_when_idle();
  // Takes the connection out, and closes. Throws Error(EBADF).
  std::unique_ptr<NbdConnection> take();

 private:
  struct Call;
  static void on_change(Napi::Env env, Napi::Function, NbdHandle* handle, void*);
  static void on_last_change(Napi::Env env, void*, NbdHandle* handle);
  static void on_exit(void* handle);
  using Changed = Napi::TypedThreadSafeFunction<NbdHandle, void, on_change>;

  explicit NbdHandle(Napi::Env env) : env_(env) {}
  void arrived(const std::shared_ptr<Call>& call, const std::exception_ptr& failure);
  void settle();
  void release();

  Napi::Env env_;
  std::shared_ptr<NbdSession> session_;
  std::shared_ptr<NbdHandle> self_;
  size_t pending_ = 0;  // calls that are not settled: these hold the event loop
  bool closed_ = false;

  std::mutex mutex_;  // guards the rest
  std::deque<std::shared_ptr<Call>> arrived_;
  Changed changed_;
  bool reachable_ = true;  // `changed_` may be called
};

}  // namespace qb
