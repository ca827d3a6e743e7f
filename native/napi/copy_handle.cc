#include "napi/copy_handle.h"

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "copy/job.h"
#include "napi/copy_spec.h"
#include "napi/errors.h"

namespace qb {

namespace {

// Tells this External from those of other addons, and from those of another copy of this one in the
// same process, which may be of another version: the second half is an address of this copy.
const napi_type_tag kTag = {0x71636f7732626b70, reinterpret_cast<uintptr_t>(&kTag)};

class Handle;
void on_change(Napi::Env env, Napi::Function, Handle* handle, void*);
void on_last_change(Napi::Env env, void*, Handle* handle);
using Changed = Napi::TypedThreadSafeFunction<Handle, void, on_change>;

// Lives on the JavaScript thread, but for the job's thread calling `changed_`. Kept alive by itself
// from the start until nothing that `changed_` was called for is on its way any more: JavaScript
// may have let go of the job before.
class Handle : public std::enable_shared_from_this<Handle> {
 public:
  Handle(Napi::Env env, const CopySpec& spec) : env_(env), job_(std::make_unique<CopyJob>(spec)) {}

  void start() {
    changed_ = Changed::New(env_, "qcow2-backup copy", 0, 1, this, on_last_change);
    // The event loop is held while a promise is open, not by the job: see hold().
    changed_.Unref(env_);
    self_ = shared_from_this();
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

  Napi::Promise push(std::vector<Row> rows) {
    auto deferred = Napi::Promise::Deferred::New(env_);
    job_->push(std::move(rows));
    pushes_.push_back(deferred);
    settle();
    return deferred.Promise();
  }

  Napi::Promise finish() {
    auto deferred = Napi::Promise::Deferred::New(env_);
    finishes_.push_back(deferred);
    job_->close();
    settle();
    return deferred.Promise();
  }

  void cancel() { job_->cancel(); }
  void retry(uint64_t start) { job_->retry(start); }
  void give_up(uint64_t start) { job_->give_up(start); }
  void sync() { job_->sync(); }

  // Resolves with what happened since it was called last; with undefined when the job has ended.
  // One call at a time.
  Napi::Promise events() {
    events_ = Napi::Promise::Deferred::New(env_);
    Napi::Promise promise = events_->Promise();
    settle();
    return promise;
  }

  // What a wanted read brought; no bytes: it failed.
  void bring(uint64_t id, const Napi::Value& bytes) {
    CallerReads* caller = job_->caller();
    if (!caller) return;
    if (bytes.IsUndefined()) {
      caller->fail(id, EIO);
      return;
    }
    auto array = bytes.As<Napi::Uint8Array>();
    caller->bring(id, array.Data(), array.ByteLength());
  }

  // JavaScript has let go of the job: unless it waits for the end, nobody can bring that about.
  void drop() {
    if (job_ && finishes_.empty()) job_->cancel();
  }

  // The last change has been told: only JavaScript still holds on to this.
  void forget() { auto self = std::move(self_); }

  // Settles what can be; on the JavaScript thread.
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
    hold(!pushes_.empty() || !finishes_.empty());
    if (ended) release();
  }

  void progress(Napi::Float64Array into) {
    CopyCounters now = job_->counters();
    double numbers[] = {
        static_cast<double>(now.position), static_cast<double>(now.data),
        static_cast<double>(now.zero),     static_cast<double>(now.unchanged),
        static_cast<double>(now.read),
    };
    for (size_t i = 0; i < std::size(numbers) && i < into.ElementLength(); i++) {
      into[i] = numbers[i];
    }
  }

 private:
  // On exit of the environment: no JavaScript may run any more; the thread must not outlive it.
  static void on_exit(void* data) {
    auto* handle = static_cast<Handle*>(data);
    handle->job_.reset();
    handle->changed_.Release();
  }

  void settle_events(bool ended) {
    if (!events_) return;
    std::vector<WantedRead> reads;
    if (CallerReads* caller = job_->caller()) reads = caller->take();
    std::vector<Area> failed = job_->take_failed();
    std::optional<uint64_t> synced = job_->take_synced();
    if (!ended && reads.empty() && failed.empty() && !synced) return;
    auto events = std::exchange(events_, std::nullopt);
    if (ended) {
      events->Resolve(env_.Undefined());
      return;
    }
    Napi::Object object = Napi::Object::New(env_);
    object.Set("reads", numbers(reads.size() * 3, [&](size_t i) {
                 const WantedRead& read = reads[i / 3];
                 return i % 3 == 0 ? read.id : i % 3 == 1 ? read.offset : read.length;
               }));
    object.Set("failed", numbers(failed.size() * 2, [&](size_t i) {
                 return i % 2 == 0 ? failed[i / 2].start : failed[i / 2].length;
               }));
    if (synced) object.Set("synced", static_cast<double>(*synced));
    events->Resolve(object);
  }

  template <typename Number>
  Napi::Float64Array numbers(size_t count, const Number& number) {
    auto array = Napi::Float64Array::New(env_, count);
    for (size_t i = 0; i < count; i++) array[i] = static_cast<double>(number(i));
    return array;
  }

  Napi::Object result() {
    CopyCounters counters = job_->counters();
    Napi::Object object = Napi::Object::New(env_);
    object.Set("dataBytes", static_cast<double>(counters.data));
    object.Set("zeroBytes", static_cast<double>(counters.zero));
    object.Set("unchangedBytes", static_cast<double>(counters.unchanged));
    object.Set("engine", job_->engine_name());
    object.Set("direct", job_->direct());
    if (!job_->checksum().empty()) object.Set("checksum", job_->checksum());
    return object;
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
  std::unique_ptr<CopyJob> job_;
  Changed changed_;
  std::shared_ptr<Handle> self_;
  std::vector<Napi::Promise::Deferred> pushes_;
  std::vector<Napi::Promise::Deferred> finishes_;
  std::optional<Napi::Promise::Deferred> events_;
  bool holding_ = false;
  bool released_ = false;
};

// A null environment means that the function is being taken down.
void on_change(Napi::Env env, Napi::Function, Handle* handle, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;
  Napi::HandleScope scope(env);
  try {
    handle->settle();
  } catch (const Napi::Error&) {
    // The environment can no longer run JavaScript (worker.terminate()): nobody is left to be told.
  }
}

// Comes once, after the last on_change; on exit of the environment too, after Handle::on_exit.
void on_last_change(Napi::Env, void*, Handle* handle) {
  handle->forget();
}

using External = Napi::External<std::shared_ptr<Handle>>;

Handle& handle_of(const Napi::Value& value) {
  if (!value.IsExternal() || !value.As<External>().CheckTypeTag(&kTag)) {
    throw Napi::TypeError::New(value.Env(), "not a copy job");
  }
  return **value.As<External>().Data();
}

// As<> takes any typed array, and would read and write past the end of one of smaller elements.
Napi::Float64Array doubles(const Napi::Value& value) {
  bool sound =
      value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
  if (!sound) throw Napi::TypeError::New(value.Env(), "not a Float64Array");
  return value.As<Napi::Float64Array>();
}

Napi::Value start(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto handle = std::make_shared<Handle>(info.Env(), copy_spec_of(info[0].As<Napi::Object>()));
    handle->start();
    auto external = External::New(info.Env(), new std::shared_ptr<Handle>(handle),
                                  [](Napi::BasicEnv, std::shared_ptr<Handle>* held) {
                                    (*held)->drop();
                                    delete held;
                                  });
    external.TypeTag(&kTag);
    return Napi::Value(external);
  });
}

Napi::Value push(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    Napi::Float64Array columns = doubles(info[1]);
    auto files = info[2].As<Napi::Number>().Uint32Value();
    auto rows = unpack_rows(columns.Data(), columns.ElementLength() / kRowColumns, files);
    return Napi::Value(handle_of(info[0]).push(std::move(rows)));
  });
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  return handle_of(info[0]).finish();
}

Napi::Value events(const Napi::CallbackInfo& info) {
  return handle_of(info[0]).events();
}

uint64_t whole(const Napi::Value& value) {
  return static_cast<uint64_t>(value.As<Napi::Number>().DoubleValue());
}

void bring(const Napi::CallbackInfo& info) {
  bool bytes =
      info[2].IsTypedArray() && info[2].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!bytes && !info[2].IsUndefined()) throw Napi::TypeError::New(info.Env(), "not a Uint8Array");
  handle_of(info[0]).bring(whole(info[1]), info[2]);
}

void retry(const Napi::CallbackInfo& info) {
  handle_of(info[0]).retry(whole(info[1]));
}

void give_up(const Napi::CallbackInfo& info) {
  handle_of(info[0]).give_up(whole(info[1]));
}

void sync(const Napi::CallbackInfo& info) {
  handle_of(info[0]).sync();
}

void cancel(const Napi::CallbackInfo& info) {
  handle_of(info[0]).cancel();
}

void progress(const Napi::CallbackInfo& info) {
  handle_of(info[0]).progress(doubles(info[1]));
}

}  // namespace

void export_copy(Napi::Env env, Napi::Object exports) {
  exports.Set("copyStart", Napi::Function::New(env, start, "copyStart"));
  exports.Set("copyPush", Napi::Function::New(env, push, "copyPush"));
  exports.Set("copyFinish", Napi::Function::New(env, finish, "copyFinish"));
  exports.Set("copyEvents", Napi::Function::New(env, events, "copyEvents"));
  exports.Set("copyBring", Napi::Function::New(env, bring, "copyBring"));
  exports.Set("copyRetry", Napi::Function::New(env, retry, "copyRetry"));
  exports.Set("copyGiveUp", Napi::Function::New(env, give_up, "copyGiveUp"));
  exports.Set("copySync", Napi::Function::New(env, sync, "copySync"));
  exports.Set("copyCancel", Napi::Function::New(env, cancel, "copyCancel"));
  exports.Set("copyProgress", Napi::Function::New(env, progress, "copyProgress"));
}

}  // namespace qb
