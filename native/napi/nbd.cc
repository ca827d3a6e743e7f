#include "napi/nbd.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "napi/errors.h"
#include "napi/nbd_handle.h"
#include "napi/values.h"

namespace qb {

namespace {

const napi_type_tag kTag = handle_tag(0x71636f77326e6264);

using HandleRef = std::shared_ptr<NbdHandle>;

// Collected together with the value that JavaScript has.
struct Held {
  HandleRef handle;  // null once it was closed
  ~Held() {
    if (handle) handle->close_when_idle();
  }
};
using External = Napi::External<Held>;

// Null inside if it was closed.
HandleRef& any_handle_of(const Napi::Value& value) {
  if (!value.IsExternal() || !value.As<External>().CheckTypeTag(&kTag)) {
    throw Napi::TypeError::New(value.Env(), "not an NBD connection");
  }
  return value.As<External>().Data()->handle;
}

HandleRef handle_of(const Napi::Value& value) {
  HandleRef handle = any_handle_of(value);
  if (!handle) throw Napi::TypeError::New(value.Env(), "NBD connection is closed");
  return handle;
}

Napi::Value open(const Napi::CallbackInfo& info) {
  auto spec = info[0].As<Napi::Object>();
  NbdAddress address{text(spec, "uri"), std::chrono::milliseconds(number(spec, "timeoutMs"))};
  std::vector<std::string> contexts;
  auto names = spec.Get("contexts").As<Napi::Array>();
  for (uint32_t i = 0; i < names.Length(); i++) {
    contexts.push_back(names.Get(i).As<Napi::String>().Utf8Value());
  }
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto external =
        External::New(info.Env(), new Held{NbdHandle::open(info.Env(), address, contexts)},
                      [](Napi::BasicEnv, Held* held) { delete held; });
    external.TypeTag(&kTag);
    return external;
  });
}

Napi::Value description(Napi::Env env, const NbdExport& known) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("size", static_cast<double>(known.size));
  object.Set("multiConn", known.multi_conn);
  object.Set("readOnly", known.read_only);
  object.Set("canTrim", known.can_trim);
  object.Set("canZero", known.can_zero);
  object.Set("canFlush", known.can_flush);
  object.Set("blockMin", static_cast<double>(known.block_min));
  object.Set("blockMax", static_cast<double>(known.block_max));
  object.Set("fingerprint", known.fingerprint);
  auto contexts = Napi::Array::New(env);
  for (size_t i = 0; i < known.contexts.size(); i++) {
    contexts.Set(static_cast<uint32_t>(i), Napi::Boolean::New(env, known.contexts[i]));
  }
  object.Set("contexts", contexts);
  return object;
}

Napi::Value connect(const Napi::CallbackInfo& info) {
  auto known = std::make_shared<NbdExport>();
  return handle_of(info[0])->run(
      [known](NbdStatus& nbd) { *known = nbd.info(); },
      [known](Napi::Env env) -> Napi::Value { return description(env, *known); });
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
  return handle->run([=](NbdStatus& nbd) { *runs = nbd.status(start, length); },
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
  Napi::Float64Array pairs = doubles(info[1]);
  std::vector<ByteRange> ranges;
  for (size_t i = 0; i + 1 < pairs.ElementLength(); i += 2) {
    ranges.push_back({static_cast<uint64_t>(pairs[i]), static_cast<uint64_t>(pairs[i + 1])});
  }
  return handle->run([ranges = std::move(ranges)](NbdStatus& nbd) { nbd.trim(ranges); },
                     [](Napi::Env env) { return env.Undefined(); });
}

// The bytes are copied once more on the JavaScript thread, which takes some ten microseconds:
// memory that JavaScript sees cannot be kept from being collected by a thread that hangs.
Napi::Value read(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]);
  auto memory = std::make_shared<std::vector<uint8_t>>(whole(info[2]));
  return handle->run(
      [=](NbdStatus& nbd) { nbd.transfer(Op::kRead, start, memory->size(), memory); },
      [=](Napi::Env env) -> Napi::Value {
        return Napi::Buffer<uint8_t>::Copy(env, memory->data(), memory->size());
      });
}

Napi::Value nothing(Napi::Env env) {
  return env.Undefined();
}

Napi::Value write(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]);
  if (!info[2].IsBuffer()) throw Napi::TypeError::New(info.Env(), "not a Buffer");
  auto bytes = info[2].As<Napi::Buffer<uint8_t>>();
  auto memory = std::make_shared<std::vector<uint8_t>>(bytes.Data(), bytes.Data() + bytes.Length());
  return handle->run(
      [=](NbdStatus& nbd) { nbd.transfer(Op::kWrite, start, memory->size(), memory); }, nothing);
}

Napi::Value zero(const Napi::CallbackInfo& info) {
  HandleRef handle = handle_of(info[0]);
  uint64_t start = whole(info[1]), length = whole(info[2]);
  bool no_hole = info[3].ToBoolean();
  return handle->run(
      [=](NbdStatus& nbd) { nbd.transfer(Op::kZero, start, length, nullptr, no_hole); }, nothing);
}

Napi::Value flush(const Napi::CallbackInfo& info) {
  return handle_of(info[0])->run([](NbdStatus& nbd) { nbd.transfer(Op::kSync, 0, 0, nullptr); },
                                 nothing);
}

void close(const Napi::CallbackInfo& info) {
  if (HandleRef handle = std::exchange(any_handle_of(info[0]), nullptr)) handle->close();
}

}  // namespace

void export_nbd(Napi::Env env, Napi::Object exports) {
  export_function<open>(env, exports, "nbdOpen");
  export_function<connect>(env, exports, "nbdConnect");
  export_function<status>(env, exports, "nbdStatus");
  export_function<trim>(env, exports, "nbdTrim");
  export_function<read>(env, exports, "nbdRead");
  export_function<write>(env, exports, "nbdWrite");
  export_function<zero>(env, exports, "nbdZero");
  export_function<flush>(env, exports, "nbdFlush");
  export_function<close>(env, exports, "nbdClose");
}

std::unique_ptr<NbdConnection> take_nbd_connection(const Napi::Value& handle) {
  HandleRef taken = handle_of(handle);
  any_handle_of(handle).reset();
  return guarded(handle.Env(), [&] { return taken->take(); });
}

}  // namespace qb
