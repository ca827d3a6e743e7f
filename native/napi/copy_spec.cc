#include "napi/copy_spec.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "napi/nbd.h"
#include "napi/values.h"

namespace qb {

namespace {

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

Napi::Error unknown_kind(const Napi::Object& object) {
  return Napi::TypeError::New(object.Env(), "unknown kind: " + text(object, "kind"));
}

FileStore file_of(const Napi::Object& store) {
  return {static_cast<int>(number(store, "fd"))};
}

CopySource source_of(const Napi::Object& source) {
  std::string kind = text(source, "kind");
  uint64_t size = number(source, "size");
  if (kind == "file") return {file_of(source), size, flag(source, "unlimited")};
  if (kind == "export") return {export_of(source), size};
  if (kind == "reader") return {std::make_shared<CallerStore>(), size};
  throw unknown_kind(source);
}

std::vector<CopySource> sources_of(const Napi::Object& options) {
  std::vector<CopySource> made;
  auto sources = options.Get("sources").As<Napi::Array>();
  for (uint32_t i = 0; i < sources.Length(); i++) {
    made.push_back(source_of(sources.Get(i).As<Napi::Object>()));
  }
  return made;
}

std::vector<LayerHash> layers_of(const Napi::Object& options) {
  std::vector<LayerHash> made;
  if (!flag(options, "layers")) return made;
  auto layers = options.Get("layers").As<Napi::Array>();
  for (uint32_t i = 0; i < layers.Length(); i++) {
    auto layer = layers.Get(i).As<Napi::Object>();
    made.push_back({static_cast<uint32_t>(number(layer, "store")), flag(layer, "hasBacking")});
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

CopyCompression compression_from(const Napi::Object& compression) {
  bool zstd = text(compression, "type") == "zstd";
  return {.type = zstd ? CompressionType::kZstd : CompressionType::kZlib,
          .level = static_cast<int>(number(compression, "level"))};
}

Qcow2Target image_of(const Napi::Object& target) {
  Qcow2Target image{
      .store = file_of(object(target, "store")),
      .cluster_bits = static_cast<unsigned>(number(target, "clusterBits")),
      .shared_tables = flag(target, "sharedTables"),
  };
  if (flag(target, "backing")) {
    Napi::Object backing = object(target, "backing");
    image.backing_file = bytes(backing, "name");
    image.backing_format = text(backing, "format");
  }
  if (flag(target, "compression")) {
    image.compression = compression_from(object(target, "compression"));
  }
  return image;
}

RawTarget raw_of(const Napi::Object& target) {
  Napi::Object store = object(target, "store");
  std::string kind = text(store, "kind");
  if (kind == "file") return {file_of(store)};
  if (kind == "writer") {
    return {CallerTarget{std::make_shared<CallerStore>(number(store, "requests")),
                         flag(store, "canZero")}};
  }
  if (kind != "export") throw unknown_kind(store);
  NbdStore nbd{.client = export_of(store), .can_zero = flag(store, "canZero")};
  nbd.client.no_hole = flag(store, "noHole");
  // Writes that a server acknowledged before it was lost may be lost with it.
  nbd.client.retries = 0;
  return {nbd};
}

CopyTarget target_of(const Napi::Object& target) {
  std::string kind = text(target, "kind");
  if (kind == "qcow2") return image_of(target);
  if (kind == "raw") return raw_of(target);
  if (kind == "patch") {
    return PatchTarget{file_of(object(target, "store")), number(target, "unit")};
  }
  if (kind == "hash") return HashTarget{number(target, "unit"), flag(target, "hasBacking")};
  throw unknown_kind(target);
}

}  // namespace

CopySpec copy_spec_of(const Napi::Object& options) {
  return {
      .sources = sources_of(options),
      .layers = layers_of(options),
      .target = target_of(object(options, "target")),
      .size = number(options, "size"),
      .engine = engine_of(options),
      .direct = direct_of(options),
      .requests = static_cast<unsigned>(number(options, "requests")),
      .memory = number(options, "memory"),
      .rate_limit = flag(options, "rateLimit") ? number(options, "rateLimit") : 0,
      .hold_failures = flag(options, "holdFailures"),
      .hash = flag(options, "hash"),
  };
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
