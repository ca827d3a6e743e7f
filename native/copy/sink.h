// Where a writer's bytes go: a file or a device (file_sink.h), an NBD export (remote_sink.h), or
// nowhere (null_sink.h).
#pragma once

#include <cstddef>
#include <vector>

#include "base/buffer.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// One write of neighbouring pieces of memory, and what keeps these alive; or a sync.
struct Write {
  Transfer transfer;
  std::vector<BufferRef> owners;
};

// Not thread-safe.
class Sink : public Output {
 public:
  // Hands over what is held back. Throws CopyError.
  virtual void flush() = 0;
  // Starts to make durable all that has come back by now. Throws CopyError.
  virtual void sync() = 0;
  // Appends what came back, but for what comes back through the queue.
  virtual void collect(std::vector<Transfer*>& done) = 0;
  // A request of ours that came back: lets its memory go. Throws CopyError if it failed.
  virtual void complete(Transfer* transfer) = 0;
  // Requests that have not come back.
  virtual size_t in_flight() const = 0;
  // After the last request has come back. Throws CopyError.
  virtual void set_length(uint64_t length) = 0;
  // After a failure: waits until nothing can touch memory any more but what is with the queue.
  virtual void abandon() = 0;
};

}  // namespace qb
