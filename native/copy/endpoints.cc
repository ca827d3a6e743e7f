#include "copy/endpoints.h"

#include <algorithm>
#include <utility>

#include "base/buffer.h"
#include "base/bytes.h"
#include "copy/error.h"
#include "copy/file_sink.h"
#include "copy/null_sink.h"
#include "copy/null_writer.h"
#include "copy/remote_sink.h"
#include "image/patch_writer.h"
#include "image/qcow2_writer.h"
#include "image/raw_writer.h"

namespace qb {

namespace {

// qemu-img's unit of zero detection (convert -S 4k), and an alignment that O_DIRECT takes
// everywhere.
constexpr uint64_t kRawUnit = kPage;

// A file or device that is written to, in multiples of `unit` bytes.
struct TargetFile {
  int fd;
  uint64_t unit;
};

// None for a target that is elsewhere.
std::optional<TargetFile> file_of(const CopyTarget& target) {
  if (const auto* image = std::get_if<Qcow2Target>(&target)) {
    return TargetFile{image->store.fd, 1ull << image->cluster_bits};
  }
  if (const auto* patch = std::get_if<PatchTarget>(&target)) {
    return TargetFile{patch->store.fd, patch->unit};
  }
  const auto* raw = std::get_if<RawTarget>(&target);
  const auto* file = raw ? std::get_if<FileStore>(&raw->store) : nullptr;
  if (!file) return std::nullopt;
  return TargetFile{file->fd, kRawUnit};
}

std::optional<File> open_target(const CopySpec& spec) {
  std::optional<TargetFile> file = file_of(spec.target);
  if (!file) return std::nullopt;
  return at_target([&] { return File(file->fd, true, spec.direct, file->unit); });
}

std::unique_ptr<DiskWriter> make_raw_writer(const RawTarget& target, uint64_t size,
                                            const std::optional<File>& file, BufferPool& pool,
                                            Sink& sink) {
  if (const auto* nbd = std::get_if<NbdStore>(&target.store)) {
    const NbdClientSpec& client = nbd->client;
    uint64_t end = std::min(round_up(size, client.block_min), client.size);
    uint64_t unit = std::max<uint64_t>(kRawUnit, client.block_min);
    return std::make_unique<RawWriter>(size, unit, end, pool, sink);
  }
  if (std::holds_alternative<CallerTarget>(target.store)) {
    return std::make_unique<RawWriter>(size, kRawUnit, size, pool, sink);
  }
  // Bytes of a device past the disk are not ours. But a direct write takes whole sectors, and
  // where they are large the disk may end within one.
  uint64_t end = round_up(size, file->is_device() ? file->alignment() : kPage);
  // Whole units: the last write may extend past the end of the disk until the file is truncated.
  sink.set_length(end);
  return std::make_unique<RawWriter>(size, kRawUnit, end, pool, sink);
}

std::unique_ptr<DiskWriter> make_image_writer(const Qcow2Target& target, uint64_t size,
                                              BufferPool& pool, Sink& sink) {
  ImageOptions options{
      .cluster_bits = target.cluster_bits,
      .size = size,
      .backing_file = target.backing_file,
      .backing_format = target.backing_format,
      .shared_tables = target.shared_tables,
  };
  if (target.compression) options.compression = target.compression->type;
  return std::make_unique<Qcow2Writer>(options, pool, sink);
}

}  // namespace

std::vector<std::optional<File>> open_files(const std::vector<CopySource>& sources, Direct direct) {
  std::vector<std::optional<File>> files;
  for (size_t i = 0; i < sources.size(); i++) {
    const auto* file = std::get_if<FileStore>(&sources[i].store);
    if (!file) {
      files.emplace_back();
      continue;
    }
    try {
      files.emplace_back(File::source(file->fd, direct, kPage));
    } catch (const Error& error) {
      throw CopyError(Failure::kRead, error.errnum(), error.context(), static_cast<uint32_t>(i));
    }
  }
  return files;
}

EndpointFiles open_endpoints(const CopySpec& spec) {
  return {open_files(spec.sources, spec.direct), open_target(spec)};
}

std::vector<Store> open_stores(std::vector<std::optional<File>>& files,
                               const std::vector<CopySource>& sources, Engine& engine) {
  std::vector<Store> stores;
  stores.reserve(sources.size());
  for (size_t i = 0; i < sources.size(); i++) {
    const CopySource& source = sources[i];
    if (files[i]) {
      stores.emplace_back(source.size, std::move(*files[i]));
    } else if (const auto* nbd = std::get_if<NbdClientSpec>(&source.store)) {
      stores.emplace_back(source.size,
                          std::make_shared<NbdClient>(*nbd, [&engine] { engine.wake(); }));
    } else {
      stores.emplace_back(source.size, std::get<std::shared_ptr<CallerStore>>(source.store));
    }
  }
  return stores;
}

std::unique_ptr<Sink> make_sink(const CopyTarget& target, std::optional<File>& file, Queue& queue,
                                Engine& engine) {
  if (file) {
    bool fresh = !std::holds_alternative<PatchTarget>(target);
    return std::make_unique<FileSink>(*file, queue, fresh);
  }
  if (std::holds_alternative<HashTarget>(target)) return std::make_unique<NullSink>();
  const auto& store = std::get<RawTarget>(target).store;
  if (const auto* caller = std::get_if<CallerTarget>(&store)) {
    return std::make_unique<RemoteSink>(caller->requests, caller->can_zero);
  }
  const auto& nbd = std::get<NbdStore>(store);
  auto client = std::make_shared<NbdClient>(nbd.client, [&engine] { engine.wake(); });
  return std::make_unique<RemoteSink>(std::move(client), nbd.can_zero);
}

std::unique_ptr<DiskWriter> make_writer(const CopySpec& spec, const std::optional<File>& file,
                                        BufferPool& pool, Sink& sink) {
  if (const auto* image = std::get_if<Qcow2Target>(&spec.target)) {
    return make_image_writer(*image, spec.size, pool, sink);
  }
  if (const auto* patch = std::get_if<PatchTarget>(&spec.target)) {
    sink.set_length(spec.size);
    return std::make_unique<PatchWriter>(spec.size, patch->unit, pool, sink);
  }
  if (const auto* hash = std::get_if<HashTarget>(&spec.target)) {
    return std::make_unique<NullWriter>(hash->unit, hash->has_backing);
  }
  return make_raw_writer(std::get<RawTarget>(spec.target), spec.size, file, pool, sink);
}

}  // namespace qb
