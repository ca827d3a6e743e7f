// The border: the functions that JavaScript can call. No policy, no defaults.
#include <libdeflate.h>
#include <napi.h>
#include <zlib.h>
#include <zstd.h>

#include "napi/compare_handle.h"
#include "napi/contents.h"
#include "napi/copy_handle.h"
#include "napi/errors.h"
#include "napi/files.h"
#include "napi/names.h"
#include "napi/nbd.h"
#include "napi/small_files.h"

namespace qb {

namespace {

// The libraries in this file, not those of the same name that node itself exports.
Napi::Value versions(const Napi::CallbackInfo& info) {
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("deflate", LIBDEFLATE_VERSION_STRING);
  object.Set("zstd", ZSTD_versionString());
  object.Set("zlib", zlibVersion());
  return object;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  export_function<versions>(env, exports, "versions");
  export_files(env, exports);
  export_names(env, exports);
  export_small_files(env, exports);
  export_contents(env, exports);
  export_copy(env, exports);
  export_compare(env, exports);
  export_nbd(env, exports);
  return exports;
}

NODE_API_MODULE(qcow2_backup, init)

}  // namespace

}  // namespace qb
