#include "napi/contents.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/blake2b.h"
#include "base/error.h"
#include "codec/codec.h"
#include "napi/promise_worker.h"
#include "napi/values.h"

namespace qb {

namespace {

// A Buffer that stays where it is while a thread of the pool reads it.
class Pinned {
 public:
  explicit Pinned(const Napi::Value& value) {
    if (!value.IsBuffer()) throw Napi::TypeError::New(value.Env(), "not a Buffer");
    auto buffer = value.As<Napi::Buffer<uint8_t>>();
    data = buffer.Data();
    size = buffer.Length();
    held_ = Napi::Persistent(buffer);
  }
  const uint8_t* data;
  size_t size;

 private:
  Napi::Reference<Napi::Buffer<uint8_t>> held_;
};

Napi::Value copied(Napi::Env env, const std::vector<uint8_t>& bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

Napi::Value decompress_cluster(const Napi::CallbackInfo& info) {
  auto in = std::make_shared<Pinned>(info[1]);
  auto type =
      info[0].As<Napi::String>().Utf8Value() == "zstd" ? Compression::kZstd : Compression::kDeflate;
  auto out = std::make_shared<std::vector<uint8_t>>(whole(info[2]));
  return PromiseWorker::run(
      info.Env(),
      [=] {
        if (!decompress(type, in->data, in->size, out->data(), out->size())) {
          throw Error(EILSEQ, "decompress");
        }
      },
      [in, out](Napi::Env env) { return copied(env, *out); });
}

Napi::Value blake2b_of(const Napi::CallbackInfo& info) {
  auto in = std::make_shared<Pinned>(info[0]);
  auto digest = std::make_shared<Digest>();
  return PromiseWorker::run(
      info.Env(),
      [=] {
        const Message message{{in->data, in->size}};
        blake2b_all({&message, 1}, {digest.get(), 1});
      },
      [in, digest](Napi::Env env) -> Napi::Value {
        return Napi::Buffer<uint8_t>::Copy(env, digest->data(), digest->size());
      });
}

}  // namespace

void export_contents(Napi::Env env, Napi::Object exports) {
  export_function<decompress_cluster>(env, exports, "decompressCluster");
  export_function<blake2b_of>(env, exports, "blake2bOf");
}

}  // namespace qb
