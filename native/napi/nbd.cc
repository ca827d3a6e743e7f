#include "napi/nbd.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "napi/errors.h"
#include "napi/promise_worker.h"
#include "source/nbd_status.h"

namespace qb {

namespace {

// Tells this External from those of other addons, and from those of another copy of this one in the
// same process, which may be of another version: the second half is an address of this copy.
const napi_type_tag kTag = {0x71636f7732626b70, reinterpret_cast<uintptr_t>(&kTag)};

// Shared with the calls under way, so that closing waits for nothing.
struct Handle {
  std::mutex one_at_a_time;
  std::unique_ptr<NbdStatus> status;  // null once the connection was taken

  // Runs `use` when no other call does.
  template <typename Use>
  auto with(Use use) {
    std::lock_guard lock(one_at_a_time);
    if (!status) throw Error(EBADF, "NBD connection");
    return use(*status);
  }
};
using HandleRef = std::shared_ptr<Handle>;
using External = Napi::External<HandleRef>;

// Null inside if it was closed.
HandleRef& any_handle_of(const Napi::Value& value) {
  if (!value.IsExternal() || !value.As<External>().CheckTypeTag(&kTag)) {
    throw Napi::TypeError::New(value.Env(), "not an NBD connection");
  }
  return *value.As<External>().Data();
}

HandleRef handle_of(const Napi::Value& value) {
  HandleRef handle = any_handle_of(value);
  if (!handle) throw Napi::TypeError::New(value.Env(), "NBD connection is closed");
  return handle;
}

uint64_t whole(const Napi::Value& value) {
  return static_cast<uint64_t>(value.As<Napi::Number>().DoubleValue());
}

Napi::Value open(const Napi::CallbackInfo& info) {
  auto spec = info[0].As<Napi::Object>();
  NbdAddress address{spec.Get("uri").As<Napi::String>().Utf8Value(),
                     std::chrono::milliseconds(whole(spec.Get("timeoutMs")))};
  std::vector<std::string> contexts;
  auto names = spec.Get("contexts").As<Napi::Array>();
  for (uint32_t i = 0; i < names.Length(); i++) {
    contexts.push_back(names.Get(i).As<Napi::String>().Utf8Value());
  }
  auto handle = std::make_shared<Handle>();
  return PromiseWorker::run(
      info.Env(), [=] { handle->status = std::make_unique<NbdStatus>(address, contexts); },
      [=](Napi::Env env) -> Napi::Value {
        auto external = External::New(env, new HandleRef(handle),
                                      [](Napi::BasicEnv, HandleRef* held) { delete held; });
        external.TypeTag(&kTag);
        return external;
      });
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  const NbdExport& known = handle_of(info[0])->status->info();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("size", static_cast<double>(known.size));
  object.Set("multiConn", known.multi_conn);
  object.Set("readOnly", known.read_only);
  object.Set("canTrim", known.can_trim);
  object.Set("canZero", known.can_zero);
  object.Set("canFlush", known.can_flush);
  object.Set("blockMin", static_cast<double>(known.block_min));
  object.Set("blockMax", static_cast<double>(known.block_max));
  auto contexts = Napi::Array::New(info.Env());
  for (size_t i = 0; i < known.contexts.size(); i++) {
    contexts.Set(static_cast<uint32_t>(i), Napi::Boolean::New(info.Env(), known.contexts[i]));
  }
  object.Set("contexts", contexts);
  return object;
}

Napi::Value pairs(Napi::Env env, const std::vector<StatusRun>& runs) {
  auto array = Napi::Float64Array::New(env, runs.size() * 2);
  double* at = array.Data();
  for (const StatusRun& run : runs) {
    *at++ = static_cast<double>(run.length);
    *at++ = run.flags;
  }
  return array;
}

Napi::Value status(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]);
  uint64_t length = whole(info[2]);
  auto runs = std::make_shared<std::vector<std::vector<StatusRun>>>();
  return PromiseWorker::run(
      info.Env(),
      [=] { *runs = handle->with([&](NbdStatus& nbd) { return nbd.status(start, length); }); },
      [=](Napi::Env env) -> Napi::Value {
        auto contexts = Napi::Array::New(env, runs->size());
        for (size_t i = 0; i < runs->size(); i++) {
          contexts.Set(static_cast<uint32_t>(i), pairs(env, (*runs)[i]));
        }
        return contexts;
      });
}

Napi::Value trim(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]);
  uint64_t length = whole(info[2]);
  return PromiseWorker::run(
      info.Env(), [=] { handle->with([&](NbdStatus& nbd) { nbd.trim(start, length); }); },
      [](Napi::Env env) { return env.Undefined(); });
}

Napi::Value read(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]), length = whole(info[2]);
  auto bytes = std::make_shared<std::shared_ptr<std::vector<uint8_t>>>();
  return PromiseWorker::run(
      info.Env(),
      [=] { *bytes = handle->with([&](NbdStatus& nbd) { return nbd.read(start, length); }); },
      [=](Napi::Env env) -> Napi::Value {
        return Napi::Buffer<uint8_t>::Copy(env, (*bytes)->data(), (*bytes)->size());
      });
}

void close(const Napi::CallbackInfo& info) {
  any_handle_of(info[0]).reset();
}

}  // namespace

void export_nbd(Napi::Env env, Napi::Object exports) {
  exports.Set("nbdOpen", Napi::Function::New(env, open, "nbdOpen"));
  exports.Set("nbdInfo", Napi::Function::New(env, describe, "nbdInfo"));
  exports.Set("nbdStatus", Napi::Function::New(env, status, "nbdStatus"));
  exports.Set("nbdRead", Napi::Function::New(env, read, "nbdRead"));
  exports.Set("nbdTrim", Napi::Function::New(env, trim, "nbdTrim"));
  exports.Set("nbdClose", Napi::Function::New(env, close, "nbdClose"));
}

std::shared_ptr<NbdConnection> take_nbd_connection(const Napi::Value& handle) {
  HandleRef taken = handle_of(handle);
  any_handle_of(handle).reset();
  return taken->with([&](NbdStatus& nbd) {
    auto connection = nbd.release_connection();
    taken->status.reset();
    return connection;
  });
}

}  // namespace qb
