#include "napi/values.h"

namespace qb {

namespace {

// Every loaded copy of the addon has it at an address of its own.
const char kThisCopy = 0;

}  // namespace

uint64_t whole(const Napi::Value& value) {
  return static_cast<uint64_t>(value.As<Napi::Number>().DoubleValue());
}

uint64_t number(const Napi::Object& object, const char* name) {
  return whole(object.Get(name));
}

std::string text(const Napi::Object& object, const char* name) {
  return object.Get(name).As<Napi::String>().Utf8Value();
}

bool flag(const Napi::Object& object, const char* name) {
  return object.Get(name).ToBoolean();
}

Napi::Object object(const Napi::Object& object, const char* name) {
  Napi::Value value = object.Get(name);
  if (!value.IsObject())
    throw Napi::TypeError::New(object.Env(), std::string(name) + ": no object");
  return value.As<Napi::Object>();
}

std::string bytes(const Napi::Object& object, const char* name) {
  Napi::Value value = object.Get(name);
  if (!value.IsBuffer())
    throw Napi::TypeError::New(object.Env(), std::string(name) + ": no Buffer");
  auto buffer = value.As<Napi::Buffer<char>>();
  return {buffer.Data(), buffer.Length()};
}

Napi::Float64Array doubles(const Napi::Value& value) {
  bool sound =
      value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
  if (!sound) throw Napi::TypeError::New(value.Env(), "not a Float64Array");
  return value.As<Napi::Float64Array>();
}

napi_type_tag handle_tag(uint64_t kind) {
  return {kind, reinterpret_cast<uintptr_t>(&kThisCopy)};
}

}  // namespace qb
