// Where a writer's bytes go: a file or a device (file_sink.h), an NBD export (remote_sink.h), or
// nowhere (null_sink.h).
#pragma once

#include <cstddef>
#include <vector>

#include "base/buffer.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// One write of adjacent pieces of memory, with their owners; or a sync.
struct Write {
  Transfer transfer;
  std::vector<BufferRef> owners;
};

// Not thread-safe.
class Sink : public Output {
 public:
  // Hands over data held back. Throws CopyError.
  virtual void flush() = 0;
  // Starts to make durable all that has come back by now. Throws CopyError.
  virtual void sync() = 0;
  // Appends completed requests, except those completed through the queue.
  virtual void collect(std::vector<Transfer*>& done) = 0;
  // A request of ours that came back: lets its memory go. Throws CopyError if it failed.
  virtual void complete(Transfer* transfer) = 0;
  // Requests that have not come back.
  virtual size_t in_flight() const = 0;
  // After the last request has come back. Throws CopyError.
  virtual void set_length(uint64_t length) = 0;
  // After a failure: waits until only requests in the queue can touch memory.
  virtual void abandon() = 0;
};

}  // namespace qb
