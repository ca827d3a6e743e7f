// Writes to a file or a device. Joins adjacent data into large writes: growing a file by
// small direct writes is three to five times slower than by large ones.
#pragma once

#include <memory>
#include <vector>

#include "base/file.h"
#include "copy/sink.h"

namespace qb {

// Every write must have come back through complete() before it ends: memory under the kernel's
// hands is never freed, rather lost.
class FileSink : public Sink {
 public:
  // `fresh`: a regular file is new, so unwritten ranges are holes.
  FileSink(File& file, Queue& queue, bool fresh = true);

  void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) override;
  bool zero(uint64_t offset, uint64_t length) override;
  void flush() override;
  void sync() override;
  void collect(std::vector<Transfer*>&) override {}
  void complete(Transfer* transfer) override;
  size_t in_flight() const override { return in_flight_; }
  void set_length(uint64_t length) override;
  void abandon() override {}

 private:
  bool continues(uint64_t offset) const;
  void submit(std::unique_ptr<Write> write);

  File& file_;
  Queue& queue_;
  bool fresh_;
  std::unique_ptr<Write> pending_;
  uint64_t pending_bytes_ = 0;
  size_t in_flight_ = 0;
};

}  // namespace qb
