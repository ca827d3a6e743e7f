#include "napi/errors.h"

#include <new>
#include <system_error>

#include "base/error.h"
#include "copy/error.h"

namespace qb {

Napi::Error to_js(Napi::Env env, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    Napi::Error js = Napi::Error::New(env, error.what());
    js.Set("code", errno_name(error.errnum()));
    js.Set("context", error.context());
    if (auto* copy = dynamic_cast<const CopyError*>(&error)) {
      js.Set("failure", static_cast<double>(copy->failure()));
      js.Set("file", static_cast<double>(copy->file()));
      js.Set("offset", static_cast<double>(copy->offset()));
    }
    return js;
  } catch (const std::bad_alloc&) {
    Napi::Error js = Napi::Error::New(env, "out of memory");
    js.Set("code", "ENOMEM");
    return js;
  } catch (const std::system_error& error) {
    // std::thread
    Napi::Error js = Napi::Error::New(env, error.what());
    js.Set("code", errno_name(error.code().value()));
    return js;
  } catch (const std::exception& error) {
    return Napi::Error::New(env, error.what());
  }
}

}  // namespace qb
