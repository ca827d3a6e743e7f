// Writes to an export of an NBD server, in place.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "copy/sink.h"
#include "source/nbd_client.h"

namespace qb {

class NbdSink : public Sink {
 public:
  // `can_zero`: whether the server makes zeroes by itself. `finished` is called on another thread
  // whenever collect() has something. Throws Error.
  NbdSink(const NbdClientSpec& spec, bool can_zero, std::function<void()> finished);

  void put(uint64_t offset, const uint8_t* data, size_t size, const BufferRef& owner) override;
  bool zero(uint64_t offset, uint64_t length) override;
  void flush() override {}
  void sync() override;
  void collect(std::vector<Transfer*>& done) override { client_->collect(done); }
  void complete(Transfer* transfer) override;
  size_t in_flight() const override { return writes_.size(); }
  // An export has the length that it has.
  void set_length(uint64_t) override {}
  void abandon() override;

 private:
  Write& add(Op op, uint64_t offset);

  bool can_zero_;
  std::map<const Transfer*, std::unique_ptr<Write>> writes_;  // in flight
  std::unique_ptr<NbdClient> client_;                         // ends before the memory it uses
};

}  // namespace qb
