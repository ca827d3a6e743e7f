// A store that a source's bytes are read from: a file, or one reached by other requests than the
// kernel's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "base/file.h"
#include "io/queue.h"
#include "io/remote.h"

namespace qb {

// Not thread-safe.
class Store {
 public:
  // `size`: bytes when it was opened; reads must not go past it.
  Store(uint64_t size, File file) : size_(size), from_(std::move(file)) {}
  Store(uint64_t size, std::shared_ptr<Remote> remote) : size_(size), from_(std::move(remote)) {}
  ~Store() { abandon(); }
  Store(Store&&) = default;
  Store& operator=(Store&&) = delete;

  uint64_t size() const { return size_; }
  // Alignment of offset, length and memory of a read.
  unsigned alignment() const;
  // Whether a read may be into several pieces of memory.
  bool scatters() const { return std::holds_alternative<File>(from_); }
  // Hands over a read into one piece of memory or, if it scatters, several, whose offset, iov and
  // tag are set. Those of a file go through `queue`; of others the last block is cut where the
  // store ends.
  void submit(Transfer& read, Queue& queue);
  // Appends completed requests, except those completed through the queue.
  void collect(std::vector<Transfer*>& done);
  // Why it could not be reached any more; empty when single reads failed.
  std::string failure() const;
  // After a failure: no remote request can touch anybody's memory any more. A file stays open, for
  // requests on it may be under way.
  void abandon();

 private:
  // Null for a file.
  Remote* remote() const;

  uint64_t size_;
  std::variant<File, std::shared_ptr<Remote>> from_;
};

}  // namespace qb
