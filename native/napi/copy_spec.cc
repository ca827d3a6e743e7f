#include "napi/copy_spec.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "napi/nbd.h"

namespace qb {

namespace {

uint64_t number(const Napi::Object& object, const char* name) {
  return static_cast<uint64_t>(object.Get(name).As<Napi::Number>().DoubleValue());
}

std::string text(const Napi::Object& object, const char* name) {
  return object.Get(name).As<Napi::String>().Utf8Value();
}

// Of what may be any bytes: a Buffer, or a string.
std::string bytes(const Napi::Object& object, const char* name) {
  Napi::Value value = object.Get(name);
  if (!value.IsBuffer()) return value.As<Napi::String>().Utf8Value();
  auto buffer = value.As<Napi::Buffer<char>>();
  return {buffer.Data(), buffer.Length()};
}

bool flag(const Napi::Object& object, const char* name) {
  return object.Get(name).ToBoolean();
}

NbdClientSpec export_of(const Napi::Object& object) {
  NbdClientSpec spec{
      .address = {text(object, "uri"), std::chrono::milliseconds(number(object, "timeoutMs"))},
      .size = number(object, "size"),
      .fingerprint = text(object, "fingerprint"),
      .connections = static_cast<unsigned>(number(object, "connections")),
      .requests = static_cast<unsigned>(number(object, "requests")),
      .block_min = static_cast<unsigned>(number(object, "blockMin")),
      .block_max = number(object, "blockMax"),
  };
  Napi::Value connection = object.Get("connection");
  if (!connection.IsUndefined()) {
    spec.adopted =
        std::make_shared<std::unique_ptr<NbdConnection>>(take_nbd_connection(connection));
  }
  return spec;
}

CopySource source_of(const Napi::Object& source) {
  CopySource made{.size = number(source, "size")};
  if (source.Has("uri")) {
    made.nbd = export_of(source);
  } else if (source.Has("fd")) {
    made.fd = static_cast<int>(number(source, "fd"));
  } else {
    made.caller = std::make_shared<CallerReads>();
  }
  return made;
}

std::vector<CopySource> sources_of(const Napi::Object& options) {
  std::vector<CopySource> made;
  auto sources = options.Get("sources").As<Napi::Array>();
  for (uint32_t i = 0; i < sources.Length(); i++) {
    made.push_back(source_of(sources.Get(i).As<Napi::Object>()));
  }
  return made;
}

EngineKind engine_of(const Napi::Object& options) {
  std::string engine = text(options, "engine");
  if (engine == "io_uring") return EngineKind::kUring;
  return engine == "threads" ? EngineKind::kThreads : EngineKind::kAuto;
}

Direct direct_of(const Napi::Object& options) {
  std::string direct = text(options, "direct");
  if (direct == "on") return Direct::kOn;
  return direct == "off" ? Direct::kOff : Direct::kAuto;
}

CopyTarget target_of(const Napi::Object& target) {
  if (target.Has("nothing")) return {.nothing = true};
  if (!target.Has("uri")) return {.fd = static_cast<int>(number(target, "fd"))};
  CopyTarget made{.nbd = export_of(target), .can_zero = flag(target, "canZero")};
  made.nbd->no_hole = flag(target, "noHole");
  // What a server acknowledged before it was lost may be lost with it.
  made.nbd->retries = 0;
  return made;
}

}  // namespace

CopySpec copy_spec_of(const Napi::Object& options) {
  CopySpec spec;
  spec.sources = sources_of(options);
  spec.target = target_of(options.Get("target").As<Napi::Object>());
  spec.qcow2 = text(options, "format") == "qcow2";
  spec.patch = text(options, "format") == "patch";
  spec.image.size = number(options, "size");
  spec.image.cluster_bits = static_cast<unsigned>(number(options, "clusterBits"));
  spec.image.backing_file = bytes(options, "backing");
  spec.image.backing_format = text(options, "backingFormat");
  spec.image.shared_tables = flag(options, "sharedTables");
  std::string compress = text(options, "compress");
  spec.compress = !compress.empty();
  if (compress == "zstd") spec.image.compression = CompressionType::kZstd;
  spec.level = static_cast<int>(number(options, "level"));
  spec.engine = engine_of(options);
  spec.direct = direct_of(options);
  spec.requests = static_cast<unsigned>(number(options, "requests"));
  spec.memory = number(options, "memory");
  spec.rate_limit = number(options, "rateLimit");
  spec.hold_failures = flag(options, "holdFailures");
  spec.hash = flag(options, "hash");
  return spec;
}

CompareSpec compare_spec_of(const Napi::Object& options) {
  return {
      .sources = sources_of(options),
      .engine = engine_of(options),
      .direct = direct_of(options),
      .requests = static_cast<unsigned>(number(options, "requests")),
      .memory = number(options, "memory"),
      .granularity = number(options, "granularity"),
  };
}

}  // namespace qb
