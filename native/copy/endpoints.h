// The two ends of a copy, made from its spec: stores to read from, a sink and a writer.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/file.h"
#include "copy/sink.h"
#include "copy/spec.h"
#include "copy/store.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// Those endpoints that are files or devices; none for the others.
struct EndpointFiles {
  std::vector<std::optional<File>> sources;
  std::optional<File> target;

  // Nothing but direct() of the target may follow.
  void close() {
    sources.clear();
    if (target) target->close();
  }
};

// Opens sources for reading. Throws CopyError.
std::vector<std::optional<File>> open_files(const std::vector<CopySource>& sources, Direct direct);

// Opens sources and target. Throws CopyError.
EndpointFiles open_endpoints(const CopySpec& spec);

// `files`: those of the sources that are files, which are moved from. Throws Error.
std::vector<Store> open_stores(std::vector<std::optional<File>>& files,
                               const std::vector<CopySource>& sources, Engine& engine);

// `file`: the target, if it is one. Throws Error.
std::unique_ptr<Sink> make_sink(const CopyTarget& target, std::optional<File>& file, Queue& queue,
                                Engine& engine);

// Throws Error when the target cannot be such an image.
std::unique_ptr<DiskWriter> make_writer(const CopySpec& spec, const std::optional<File>& file,
                                        BufferPool& pool, Sink& sink);

}  // namespace qb
