#include "napi/copy_handle.h"

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "copy/job.h"
#include "napi/copy_spec.h"
#include "napi/errors.h"
#include "napi/job_handle.h"
#include "napi/values.h"

namespace qb {

namespace {

const napi_type_tag kTag = handle_tag(0x71636f7732637079);

class Handle : public JobHandle<CopyJob> {
 public:
  Handle(Napi::Env env, const CopySpec& spec) : JobHandle(env, std::make_unique<CopyJob>(spec)) {}

  std::shared_ptr<RateLimit> rate() { return job().rate(); }
  void retry(uint64_t start) { job().retry(start); }
  void give_up(uint64_t start) { job().give_up(start); }
  void sync() { job().sync(); }

  // The result of a requested read; no bytes: it failed.
  void complete_read(uint64_t id, const Napi::Value& bytes) {
    CallerStore* caller = job().caller_source();
    if (!caller) return;
    if (bytes.IsUndefined()) {
      caller->fail(id, EIO);
      return;
    }
    auto array = bytes.As<Napi::Uint8Array>();
    caller->complete_read(id, array.Data(), array.ByteLength());
  }

  // The result of a requested write, zeroes or flush.
  void complete_write(uint64_t id, bool done) {
    CallerStore* caller = job().caller_target();
    if (!caller) return;
    if (done) {
      caller->complete(id);
    } else {
      caller->fail(id, EIO);
    }
  }

  void progress(Napi::Float64Array into) {
    CopyCounters now = job().counters();
    fill(into, {now.position, now.data, now.zero, now.unchanged, now.read});
  }

 private:
  std::optional<Napi::Value> news() override {
    // Requests after its end are dropped.
    if (job().ended()) return std::nullopt;
    std::vector<CallerRequest> reads, writes;
    if (CallerStore* caller = job().caller_source()) reads = caller->take();
    if (CallerStore* caller = job().caller_target()) writes = caller->take();
    std::vector<Area> failed = job().take_failed();
    std::optional<uint64_t> synced = job().take_synced();
    if (reads.empty() && writes.empty() && failed.empty() && !synced) return std::nullopt;
    Napi::Object object = Napi::Object::New(env());
    object.Set("reads", numbers(reads.size() * 3, [&](size_t i) {
                 const CallerRequest& read = reads[i / 3];
                 return i % 3 == 0 ? read.id : i % 3 == 1 ? read.offset : read.length;
               }));
    object.Set("writes", wanted_writes(writes));
    object.Set("failed", numbers(failed.size() * 2, [&](size_t i) {
                 return i % 2 == 0 ? failed[i / 2].start : failed[i / 2].length;
               }));
    if (synced) object.Set("synced", static_cast<double>(*synced));
    return object;
  }

  // With the bytes of each write in a Buffer of its own: the caller may keep it.
  Napi::Array wanted_writes(const std::vector<CallerRequest>& writes) {
    auto array = Napi::Array::New(env());
    uint32_t count = 0;
    for (const CallerRequest& write : writes) {
      Napi::Object object = Napi::Object::New(env());
      object.Set("id", static_cast<double>(write.id));
      object.Set("offset", static_cast<double>(write.offset));
      object.Set("length", static_cast<double>(write.length));
      const char* kind = write.op == Op::kWrite  ? "write"
                         : write.op == Op::kZero ? "zero"
                                                 : "flush";
      object.Set("kind", kind);
      if (write.op == Op::kWrite) {
        auto bytes = Napi::Buffer<uint8_t>::New(env(), write.length);
        // The job may have given up meanwhile.
        if (!job().caller_target()->copy_bytes(write.id, bytes.Data())) continue;
        object.Set("bytes", bytes);
      }
      array.Set(count++, object);
    }
    return array;
  }

  Napi::Value result() override {
    CopyCounters counters = job().counters();
    Napi::Object object = Napi::Object::New(env());
    object.Set("dataBytes", static_cast<double>(counters.data));
    object.Set("zeroBytes", static_cast<double>(counters.zero));
    object.Set("unchangedBytes", static_cast<double>(counters.unchanged));
    object.Set("engine", job().engine_name());
    object.Set("direct", job().direct());
    const auto& [content, layers] = job().checksums();
    if (!content.empty()) object.Set("checksum", content);
    if (layers.empty()) return object;
    auto checksums = Napi::Array::New(env(), layers.size());
    for (uint32_t i = 0; i < layers.size(); i++) checksums.Set(i, layers[i]);
    object.Set("layerChecksums", checksums);
    return object;
  }
};

Handle& handle_of(const Napi::Value& value) {
  return taken_handle<Handle>(value, kTag, "a copy job");
}

Napi::Value start(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto options = info[0].As<Napi::Object>();
    CopySpec spec = copy_spec_of(options);
    if (Napi::Value other = options.Get("sharesRateOf"); !other.IsUndefined()) {
      spec.shared_rate = handle_of(other).rate();
    }
    auto handle = std::make_shared<Handle>(info.Env(), spec);
    return give_handle(info.Env(), std::move(handle), "qcow2-backup copy", kTag);
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

void complete_read(const Napi::CallbackInfo& info) {
  bool bytes =
      info[2].IsTypedArray() && info[2].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!bytes && !info[2].IsUndefined()) throw Napi::TypeError::New(info.Env(), "not a Uint8Array");
  handle_of(info[0]).complete_read(whole(info[1]), info[2]);
}

void complete_write(const Napi::CallbackInfo& info) {
  handle_of(info[0]).complete_write(whole(info[1]), info[2].ToBoolean());
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
  export_function<start>(env, exports, "copyStart");
  export_function<push>(env, exports, "copyPush");
  export_function<finish>(env, exports, "copyFinish");
  export_function<events>(env, exports, "copyEvents");
  export_function<complete_read>(env, exports, "copyCompleteRead");
  export_function<complete_write>(env, exports, "copyCompleteWrite");
  export_function<retry>(env, exports, "copyRetry");
  export_function<give_up>(env, exports, "copyGiveUp");
  export_function<sync>(env, exports, "copySync");
  export_function<cancel>(env, exports, "copyCancel");
  export_function<progress>(env, exports, "copyProgress");
}

}  // namespace qb
