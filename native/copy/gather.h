// Joins what lies side by side in the file into large writes: growing a file by small direct writes
// is three to five times slower than by large ones.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// One write of neighbouring pieces of memory, and what keeps these alive.
struct Write {
  Transfer transfer;
  std::vector<BufferRef> owners;
};

// Not thread-safe. Every write must have come back through complete() before it ends: memory under
// the kernel's hands is never freed, rather lost.
class Gather : public Output {
 public:
  Gather(File& file, Queue& queue);

  void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) override;
  // Hands over what is held back. Throws CopyError if the file cannot become so long.
  void flush();
  // A write of ours that the queue gave back: lets its memory go. Throws CopyError if it failed.
  void complete(Transfer* transfer);

 private:
  bool continues(uint64_t offset) const;

  File& file_;
  Queue& queue_;
  std::unique_ptr<Write> pending_;
  uint64_t pending_bytes_ = 0;
};

}  // namespace qb
