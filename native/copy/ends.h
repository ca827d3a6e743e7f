// The two ends of a copy, made of what it was asked for: stores to read from, a sink and a writer.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/file.h"
#include "copy/reader.h"
#include "copy/sink.h"
#include "copy/spec.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// Opens those of the sources that are files for reading; none for the others. Throws CopyError.
std::vector<std::optional<File>> open_files(const std::vector<CopySource>& sources, Direct direct);

// `files`: those of the sources that are files, which are moved from. Throws Error.
std::vector<Store> open_stores(std::vector<std::optional<File>>& files,
                               const std::vector<CopySource>& sources, Engine& engine);

// Opens the file or device that the target is in; none for others. Throws CopyError.
std::optional<File> open_target(const CopySpec& spec);

// `file`: from open_target(). Throws Error.
std::unique_ptr<Sink> make_sink(const CopyTarget& target, std::optional<File>& file, Queue& queue,
                                Engine& engine);

// Throws Error when the target cannot be such an image.
std::unique_ptr<DiskWriter> make_writer(const CopySpec& spec, const std::optional<File>& file,
                                        BufferPool& pool, Sink& sink);

}  // namespace qb
