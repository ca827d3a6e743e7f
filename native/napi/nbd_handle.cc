#include "napi/nbd_handle.h"

#include <dlfcn.h>

#include <utility>

#include "napi/errors.h"

namespace qb {

namespace {

// The threads of sessions are not waited for. So the addon stays in the process even when the last
// environment that used it is gone.
void never_unload() {
  static const int address = 0;
  Dl_info info;
  if (dladdr(&address, &info) != 0) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

}  // namespace

struct NbdHandle::Call {
  Napi::Promise::Deferred deferred;
  Result result;
  std::exception_ptr failure;
};

std::shared_ptr<NbdHandle> NbdHandle::open(Napi::Env env, const NbdAddress& address,
                                           const std::vector<std::string>& contexts) {
  never_unload();
  std::shared_ptr<NbdHandle> handle(new NbdHandle(env));
  handle->changed_ = Changed::New(env, "qcow2-backup nbd", 0, 1, handle.get(), on_last_change);
  handle->changed_.Unref(env);
  handle->self_ = handle;
  // Registered after the function, so that it runs before that is taken down with the environment:
  // the thread must not call it from then on.
  napi_add_env_cleanup_hook(env, on_exit, handle.get());
  try {
    handle->session_ = NbdSession::start(address, contexts);
  } catch (...) {
    handle->release();
    throw;
  }
  return handle;
}

Napi::Promise NbdHandle::run(NbdSession::Task task, Result result) {
  auto deferred = Napi::Promise::Deferred::New(env_);
  auto call = std::make_shared<Call>(Call{deferred, std::move(result), nullptr});
  if (pending_++ == 0) changed_.Ref(env_);
  session_->run(std::move(task), [self = shared_from_this(), call](const std::exception_ptr& why) {
    self->arrived(call, why);
  });
  return deferred.Promise();
}

// On the session's thread.
void NbdHandle::arrived(const std::shared_ptr<Call>& call, const std::exception_ptr& failure) {
  std::lock_guard lock(mutex_);
  call->failure = failure;
  arrived_.push_back(call);
  if (reachable_) changed_.NonBlockingCall();
}

void NbdHandle::settle() {
  std::deque<std::shared_ptr<Call>> calls;
  {
    std::lock_guard lock(mutex_);
    calls.swap(arrived_);
  }
  for (const auto& call : calls) {
    pending_--;
    if (call->failure) {
      call->deferred.Reject(to_js(env_, call->failure).Value());
    } else {
      call->deferred.Resolve(call->result(env_));
    }
  }
  if (calls.empty() || pending_ > 0) return;
  changed_.Unref(env_);
  if (closed_) close();
}

void NbdHandle::close() {
  closed_ = true;
  session_->close();
  if (pending_ == 0) release();
}

void NbdHandle::close_when_idle() {
  closed_ = true;
  if (pending_ == 0) close();
}

std::unique_ptr<NbdConnection> NbdHandle::take() {
  auto connection = session_->take();
  close();
  return connection;
}

void NbdHandle::release() {
  {
    std::lock_guard lock(mutex_);
    if (!reachable_) return;
    reachable_ = false;
  }
  napi_remove_env_cleanup_hook(env_, on_exit, this);
  changed_.Release();
}

void NbdHandle::on_change(Napi::Env env, Napi::Function, NbdHandle* handle, void*) {
  // Null while the environment is taken down.
  if (static_cast<napi_env>(env)) handle->settle();
}

void NbdHandle::on_last_change(Napi::Env, void*, NbdHandle* handle) {
  handle->self_.reset();
}

void NbdHandle::on_exit(void* data) {
  auto* handle = static_cast<NbdHandle*>(data);
  {
    std::lock_guard lock(handle->mutex_);
    handle->reachable_ = false;
  }
  if (handle->session_) handle->session_->close();
}

}  // namespace qb
