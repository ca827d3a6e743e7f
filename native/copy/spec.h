// Parameters of a copy: its sources, its target, and its limits.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/file.h"
#include "copy/rate_limit.h"
#include "format/header.h"
#include "io/make_engine.h"
#include "source/caller_store.h"
#include "source/nbd_client.h"

namespace qb {

// A file or a device. It is opened again by the constructor of the job; see File::source() for how
// long the descriptor of a source must stay open.
struct FileStore {
  int fd = -1;
};

struct CopySource {
  std::variant<FileStore, NbdClientSpec, std::shared_ptr<CallerStore>> store;
  uint64_t size = 0;       // bytes, when it was opened
  bool unlimited = false;  // reads do not count against the rate limit
};

struct CopyCompression {
  CompressionType type = CompressionType::kZlib;
  int level = 0;
};

// A new image in a file or on a device.
struct Qcow2Target {
  FileStore store;
  unsigned cluster_bits = 16;
  std::string backing_file = "";  // empty: none
  std::string backing_format = "";
  bool shared_tables = true;  // see ImageOptions
  std::optional<CopyCompression> compression = std::nullopt;
};

// An export that is overwritten.
struct NbdStore {
  NbdClientSpec client;
  bool can_zero = false;  // the server makes zeroes by itself
};

// A target that the caller writes.
struct CallerTarget {
  std::shared_ptr<CallerStore> requests;
  bool can_zero = false;  // it makes zeroes by itself
};

// The disk as it is.
struct RawTarget {
  std::variant<FileStore, NbdStore, CallerTarget> store;
};

// Raw data into an existing file: skipped ranges stay unchanged there.
struct PatchTarget {
  FileStore store;
  uint64_t unit = 512;  // bytes; all rows are multiples of it
};

// Nothing is written: the data read is only hashed.
struct HashTarget {
  uint64_t unit = 512;       // bytes, as of PatchTarget
  bool has_backing = false;  // skipped ranges are not part of the content; else they are zero
};

using CopyTarget = std::variant<Qcow2Target, RawTarget, PatchTarget, HashTarget>;

// An image of the chain that is copied, of which the hash of what it holds itself is taken, too.
struct LayerHash {
  uint32_t file = 0;         // index of the source
  bool has_backing = false;  // see HashTarget
};

struct CopySpec {
  std::vector<CopySource> sources;     // rows name them by index
  std::vector<LayerHash> layers = {};  // see layers.h
  CopyTarget target;
  uint64_t size = 0;  // of the disk, bytes
  EngineKind engine = EngineKind::kAuto;
  Direct direct = Direct::kAuto;
  unsigned requests = 16;   // reads in flight
  uint64_t memory = 0;      // bytes of buffers
  uint64_t rate_limit = 0;  // bytes read per second; 0: none
  // That of another copy, which both have to share then; null: one of its own.
  std::shared_ptr<RateLimit> shared_rate = nullptr;
  // Areas that can't be read are held for retry() or give_up(); else the first one ends the copy.
  bool hold_failures = false;
  bool hash = false;  // take the hash of the content (content_hash.h); a HashTarget always does
};

// How the clusters of the target are compressed; null: they are not.
inline const CopyCompression* compression_of(const CopySpec& spec) {
  const auto* image = std::get_if<Qcow2Target>(&spec.target);
  return image && image->compression ? &*image->compression : nullptr;
}

}  // namespace qb
