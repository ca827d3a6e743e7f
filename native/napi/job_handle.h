// A job with a thread of its own as JavaScript holds it: promises in, thread out.
#pragma once

#include <napi.h>

#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "napi/errors.h"

namespace qb {

// Lives on the JavaScript thread, but for the job's thread calling `changed_`. Kept alive by itself
// from the start until nothing that `changed_` was called for is on its way any more: JavaScript
// may have released the job before.
//
// `Job` has start(changed), has_room(), ended(), failure(), close(), cancel() and join(), as
// CopyJob does.
template <typename Job>
class JobHandle : public std::enable_shared_from_this<JobHandle<Job>> {
 public:
  JobHandle(Napi::Env env, std::unique_ptr<Job> job) : env_(env), job_(std::move(job)) {}
  virtual ~JobHandle() = default;
  JobHandle(const JobHandle&) = delete;
  JobHandle& operator=(const JobHandle&) = delete;

  // `name`: of the async resource, in diagnostics.
  void start(const char* name) {
    changed_ = Changed::New(env_, name, 0, 1, this, on_last_change);
    // The event loop is held while a promise is open, not by the job: see hold().
    changed_.Unref(env_);
    self_ = this->shared_from_this();
    // Registered after the function, so that it runs before that is taken down with the
    // environment: the thread must have gone by then.
    napi_add_env_cleanup_hook(env_, on_exit, this);
    try {
      job_->start([this] { changed_.NonBlockingCall(); });
    } catch (...) {
      release();
      throw;
    }
  }

  // Resolves when more can be taken: with false if the job has ended.
  template <typename Batch>
  Napi::Promise push(Batch batch) {
    auto deferred = Napi::Promise::Deferred::New(env_);
    job_->push(std::move(batch));
    pushes_.push_back(deferred);
    settle();
    return deferred.Promise();
  }

  // Resolves with result() when the job has ended well.
  Napi::Promise finish() {
    auto deferred = Napi::Promise::Deferred::New(env_);
    finishes_.push_back(deferred);
    job_->close();
    settle();
    return deferred.Promise();
  }

  // Resolves with the events since the last call; with undefined when the job has ended.
  // One call at a time.
  Napi::Promise events() {
    events_ = Napi::Promise::Deferred::New(env_);
    Napi::Promise promise = events_->Promise();
    settle();
    return promise;
  }

  void cancel() { job_->cancel(); }

  // JavaScript has released the job: unless it waits for the end, nobody else can end the job.
  void drop() {
    if (job_ && finishes_.empty()) job_->cancel();
  }

  // Settles promises that can be settled; on the JavaScript thread.
  void settle() {
    bool ended = job_->ended();
    if (ended || job_->has_room()) {
      auto goes_on = Napi::Boolean::New(env_, !ended);
      for (auto& deferred : std::exchange(pushes_, {})) deferred.Resolve(goes_on);
    }
    if (ended) {
      for (auto& deferred : std::exchange(finishes_, {})) {
        if (job_->failure()) {
          deferred.Reject(to_js(env_, job_->failure()).Value());
        } else {
          deferred.Resolve(result());
        }
      }
    }
    settle_events(ended);
    hold(!pushes_.empty() || !finishes_.empty() || (holds_for_events() && events_.has_value()));
    if (ended) release();
  }

 protected:
  Job& job() { return *job_; }
  Napi::Env env() const { return env_; }

  // Of a job that ended well.
  virtual Napi::Value result() = 0;
  // The events since the last call, for events(); empty if there are none.
  virtual std::optional<Napi::Value> news() = 0;
  // Whether waiting for events() alone keeps the program alive.
  virtual bool holds_for_events() const { return false; }

  template <typename Number>
  Napi::Float64Array numbers(size_t count, const Number& number) {
    auto array = Napi::Float64Array::New(env_, count);
    for (size_t i = 0; i < count; i++) array[i] = static_cast<double>(number(i));
    return array;
  }

 private:
  static void on_change(Napi::Env env, Napi::Function, JobHandle* handle, void*) {
    // A null environment means that the function is being taken down.
    if (static_cast<napi_env>(env) == nullptr) return;
    Napi::HandleScope scope(env);
    try {
      handle->settle();
    } catch (const Napi::Error&) {
      // The environment can no longer run JavaScript (worker.terminate()): there is no one to
      // notify.
    } catch (...) {
      handle->fail(std::current_exception());
    }
  }
  using Changed = Napi::TypedThreadSafeFunction<JobHandle, void, on_change>;

  // Comes once, after the last on_change; on exit of the environment too, after on_exit. From then
  // on only JavaScript still holds on to the handle.
  static void on_last_change(Napi::Env, void*, JobHandle* handle) {
    auto self = std::move(handle->self_);
  }

  // On exit of the environment: no JavaScript may run any more; the thread must not outlive it.
  static void on_exit(void* data) {
    auto* handle = static_cast<JobHandle*>(data);
    handle->job_.reset();
    handle->changed_.Release();
  }

  // The events cannot be reported for lack of memory: the job ends, and all waiting promises are
  // rejected.
  void fail(const std::exception_ptr& failure) {
    job_->cancel();
    Napi::Value error = to_js(env_, failure).Value();
    for (auto& deferred : std::exchange(pushes_, {})) deferred.Reject(error);
    for (auto& deferred : std::exchange(finishes_, {})) deferred.Reject(error);
    if (events_) std::exchange(events_, std::nullopt)->Reject(error);
  }

  void settle_events(bool ended) {
    if (!events_) return;
    std::optional<Napi::Value> happened = news();
    if (!ended && !happened) return;
    // The last events come before the end, which the next call returns.
    auto events = std::exchange(events_, std::nullopt);
    events->Resolve(happened ? *happened : env_.Undefined());
  }

  void hold(bool wanted) {
    if (wanted == holding_ || released_) return;
    holding_ = wanted;
    if (wanted) {
      changed_.Ref(env_);
    } else {
      changed_.Unref(env_);
    }
  }

  // The thread has said its last word.
  void release() {
    if (released_) return;
    released_ = true;
    napi_remove_env_cleanup_hook(env_, on_exit, this);
    // It may not have said it yet, if a push noticed the end first.
    job_->join();
    changed_.Release();
  }

  Napi::Env env_;
  std::unique_ptr<Job> job_;
  Changed changed_;
  std::shared_ptr<JobHandle> self_;
  std::vector<Napi::Promise::Deferred> pushes_;
  std::vector<Napi::Promise::Deferred> finishes_;
  std::optional<Napi::Promise::Deferred> events_;
  bool holding_ = false;
  bool released_ = false;
};

// Starts the job of `handle` and gives it to JavaScript, by whom it is dropped with the value.
// `tag` identifies this kind of External.
template <typename Handle>
Napi::Value give_handle(Napi::Env env, std::shared_ptr<Handle> handle, const char* name,
                        const napi_type_tag& tag) {
  using External = Napi::External<std::shared_ptr<Handle>>;
  handle->start(name);
  auto external = External::New(env, new std::shared_ptr<Handle>(std::move(handle)),
                                [](Napi::BasicEnv, std::shared_ptr<Handle>* held) {
                                  (*held)->drop();
                                  delete held;
                                });
  external.TypeTag(&tag);
  return external;
}

// Throws Napi::TypeError, naming the expected kind, for a value that give_handle() did not make.
template <typename Handle>
Handle& taken_handle(const Napi::Value& value, const napi_type_tag& tag, const char* what) {
  using External = Napi::External<std::shared_ptr<Handle>>;
  if (!value.IsExternal() || !value.As<External>().CheckTypeTag(&tag)) {
    throw Napi::TypeError::New(value.Env(), std::string("not ") + what);
  }
  return **value.As<External>().Data();
}

inline void fill(Napi::Float64Array into, std::initializer_list<uint64_t> values) {
  size_t i = 0;
  for (uint64_t value : values) {
    if (i == into.ElementLength()) return;
    into[i++] = static_cast<double>(value);
  }
}

}  // namespace qb
