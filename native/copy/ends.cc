#include "copy/ends.h"

#include <algorithm>
#include <utility>

#include "base/buffer.h"
#include "base/bytes.h"
#include "copy/error.h"
#include "copy/gather.h"
#include "copy/nbd_sink.h"
#include "copy/no_target.h"
#include "image/patch_writer.h"
#include "image/qcow2_writer.h"
#include "image/raw_writer.h"

namespace qb {

namespace {

// The unit is what qemu-img looks for zeroes by (convert -S 4k), and what O_DIRECT takes
// everywhere.
std::unique_ptr<RawWriter> make_raw_writer(const CopySpec& spec, const std::optional<File>& file,
                                           BufferPool& pool, Sink& sink) {
  uint64_t size = spec.image.size;
  if (!file) {
    const NbdClientSpec& nbd = *spec.target.nbd;
    uint64_t end = std::min(round_up(size, nbd.block_min), nbd.size);
    return std::make_unique<RawWriter>(size, std::max<uint64_t>(kPage, nbd.block_min), end, pool,
                                       sink);
  }
  // What lies behind the disk on a device is not ours. But a direct write takes whole sectors, and
  // where they are large the disk may end within one.
  uint64_t end = round_up(size, file->is_device() ? file->alignment() : kPage);
  // Whole units: the last write may stand past the end of the disk until the length is cut.
  sink.set_length(end);
  return std::make_unique<RawWriter>(size, kPage, end, pool, sink);
}

}  // namespace

std::vector<std::optional<File>> open_files(const std::vector<CopySource>& sources, Direct direct) {
  std::vector<std::optional<File>> files;
  for (size_t i = 0; i < sources.size(); i++) {
    if (sources[i].nbd || sources[i].caller) {
      files.emplace_back();
      continue;
    }
    try {
      files.emplace_back(File::source(sources[i].fd, direct, kPage));
    } catch (const Error& error) {
      throw CopyError(Failure::kRead, error.errnum(), error.context(), static_cast<uint32_t>(i));
    }
  }
  return files;
}

std::vector<Store> open_stores(std::vector<std::optional<File>>& files,
                               const std::vector<CopySource>& sources, Engine& engine) {
  std::vector<Store> stores;
  for (size_t i = 0; i < sources.size(); i++) {
    Store store;
    store.size = sources[i].size;
    if (files[i]) store.file.emplace(std::move(*files[i]));
    store.caller = sources[i].caller;
    if (sources[i].nbd) {
      store.nbd = std::make_unique<NbdClient>(*sources[i].nbd, [&engine] { engine.wake(); });
    }
    stores.push_back(std::move(store));
  }
  return stores;
}

std::unique_ptr<Sink> make_sink(const CopySpec& spec, std::optional<File>& file, Queue& queue,
                                Engine& engine) {
  const CopyTarget& target = spec.target;
  if (file) return std::make_unique<Gather>(*file, queue, !spec.patch);
  if (target.nothing) return std::make_unique<NoSink>();
  return std::make_unique<NbdSink>(*target.nbd, target.can_zero, [&engine] { engine.wake(); });
}

std::unique_ptr<DiskWriter> make_writer(const CopySpec& spec, const std::optional<File>& file,
                                        BufferPool& pool, Sink& sink) {
  if (spec.target.nothing) {
    return std::make_unique<NoWriter>(1ull << spec.image.cluster_bits,
                                      !spec.image.backing_file.empty());
  }
  if (spec.qcow2) return std::make_unique<Qcow2Writer>(spec.image, pool, sink);
  if (spec.patch) {
    sink.set_length(spec.image.size);
    return std::make_unique<PatchWriter>(spec.image.size, 1ull << spec.image.cluster_bits, pool,
                                         sink);
  }
  return make_raw_writer(spec, file, pool, sink);
}

}  // namespace qb
