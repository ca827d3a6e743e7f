// Work on the thread pool whose result settles a promise.
#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <utility>

#include "napi/errors.h"

namespace qb {

// `work` runs on the pool and may throw; `result` then converts its result into a value, on the
// JavaScript thread.
class PromiseWorker : public Napi::AsyncWorker {
 public:
  static Napi::Promise run(Napi::Env env, std::function<void()> work,
                           std::function<Napi::Value(Napi::Env)> result) {
    auto* worker = new PromiseWorker(env, std::move(work), std::move(result));
    Napi::Promise promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      work_();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void OnOK() override {
    if (!failure_) {
      try {
        deferred_.Resolve(result_(Env()));
        return;
      } catch (const Napi::Error&) {
        throw;
      } catch (...) {
        // There may be no memory for the result.
        failure_ = std::current_exception();
      }
    }
    deferred_.Reject(to_js(Env(), failure_).Value());
  }

 private:
  PromiseWorker(Napi::Env env, std::function<void()> work,
                std::function<Napi::Value(Napi::Env)> result)
      : AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        result_(std::move(result)) {}

  Napi::Promise::Deferred deferred_;
  std::function<void()> work_;
  std::function<Napi::Value(Napi::Env)> result_;
  std::exception_ptr failure_;
};

}  // namespace qb
