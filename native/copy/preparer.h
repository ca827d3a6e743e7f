// Converts the data read into the target's form: expands compressed clusters, looks for zeroes,
// compresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "codec/compressor.h"
#include "copy/chunk.h"
#include "copy/spec.h"
#include "image/disk_writer.h"

namespace qb {

// For one thread, the owner's; long work is done by `workers`, which must end first.
class Preparer {
 public:
  // `prepared`: called on any thread when collect() may have something.
  Preparer(const CopySpec& spec, const DiskWriter& writer, BufferPool& pool, Workers& workers,
           std::function<void()> prepared);

  // A chunk whose round of reads is complete; collect() has it once that is expanded, and if it was
  // the last round, classified. Throws CopyError.
  void start(Chunk& chunk);
  // Appends prepared chunks. Rethrows failures.
  void collect(std::vector<Chunk*>& chunks);
  // Chunks that were not collected.
  size_t in_progress() const { return in_progress_; }

 private:
  void prepare(Chunk& chunk);
  void prepare_on_worker(Chunk& chunk);
  std::unique_ptr<Compressor> borrow_compressor();

  const CopyCompression* compression_;  // null: nothing is compressed
  uint64_t unit_;
  size_t limit_;
  BufferPool& pool_;
  Workers& workers_;
  std::function<void()> prepared_;
  size_t in_progress_ = 0;

  std::mutex mutex_;  // guards all below
  std::vector<Chunk*> done_;
  std::exception_ptr failure_;
  std::vector<std::unique_ptr<Compressor>> compressors_;  // which nobody uses
};

}  // namespace qb
