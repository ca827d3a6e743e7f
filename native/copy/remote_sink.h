// Writes in place to a target that is not reached through the kernel's I/O: an export of an NBD
// server, or a target of the caller's own.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "copy/sink.h"
#include "io/remote.h"

namespace qb {

class RemoteSink : public Sink {
 public:
  // `can_zero`: whether it makes zeroes by itself.
  RemoteSink(std::shared_ptr<Remote> remote, bool can_zero);
  ~RemoteSink() override { remote_->close(); }

  void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) override;
  bool zero(uint64_t offset, uint64_t length) override;
  void flush() override {}
  void sync() override;
  void collect(std::vector<Transfer*>& done) override { remote_->collect(done); }
  void complete(Transfer* transfer) override;
  size_t in_flight() const override { return writes_.size(); }
  // It has the length that it has.
  void set_length(uint64_t) override {}
  void abandon() override;

 private:
  Write& add(Op op, uint64_t offset);

  bool can_zero_;
  std::map<const Transfer*, std::unique_ptr<Write>> writes_;  // in flight
  std::shared_ptr<Remote> remote_;
};

}  // namespace qb
