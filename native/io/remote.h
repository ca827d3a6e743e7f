// A store that is not reached through the kernel's I/O: an NBD export, or a store that the
// program that uses the library reads from.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "io/queue.h"

namespace qb {

// Takes the same transfers as Queue, those of one iov at most, and gives them back in any order.
// Thread-safety: for one thread, the owner's.
class Remote {
 public:
  // As close(); results not collected are lost.
  virtual ~Remote() = default;

  // Takes a transfer; never blocks.
  virtual void submit(Transfer* transfer) = 0;
  // Appends the finished ones. `error` of a transfer is an errno; failure() has the words.
  virtual void collect(std::vector<Transfer*>& done) = 0;
  // Transfers submitted and not yet collected.
  virtual size_t in_flight() const = 0;
  // Alignment of offsets and lengths, bytes.
  virtual unsigned alignment() const = 0;
  // Waits until no request can touch anybody's memory any more; nothing may be submitted then.
  virtual void close() = 0;
  // Why the store could not be reached any more; empty when single transfers failed.
  virtual std::string failure() const = 0;
};

}  // namespace qb
