// qb::Error → a JavaScript Error with `code` as Node's own have it.
#pragma once

#include <napi.h>

#include <exception>

namespace qb {

// For CopyError also `failure` (a number, see copy/error.h), `file` and `offset`.
Napi::Error to_js(Napi::Env env, const std::exception_ptr& failure);

// Runs `body`; our errors become JavaScript exceptions.
template <typename Body>
auto guarded(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js(env, std::current_exception());
  }
}

// Adds a function to the addon's exports. Whatever it throws becomes a JavaScript exception:
// Node-API calls it from C, through which no other exception may pass (a lack of memory, say).
template <auto function>
void export_function(Napi::Env env, Napi::Object exports, const char* name) {
  auto body = [](const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return function(info); });
  };
  exports.Set(name, Napi::Function::New(env, body, name));
}

}  // namespace qb
