// A store that the program using the library reads or writes: a source or a target of its
// own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "io/remote.h"

namespace qb {

// A request to the caller; bytes.
struct CallerRequest {
  uint64_t id;
  Op op;
  uint64_t offset;
  uint64_t length;
};

// Hands the requests of a job over to the caller's thread, and takes their results.
// Thread-safe.
class CallerStore : public Remote {
 public:
  // `most`: maximum requests with the caller at a time.
  explicit CallerStore(size_t most = SIZE_MAX) : most_(most) {}

  // Called on the job's thread when take() has something, and on the caller's when collect() has.
  // To be set before submit().
  void on_wanted(std::function<void()> told) { on_wanted_ = std::move(told); }
  void on_completed(std::function<void()> told) { on_completed_ = std::move(told); }

  void submit(Transfer* transfer) override;
  void collect(std::vector<Transfer*>& done) override;
  size_t in_flight() const override;
  unsigned alignment() const override { return 1; }
  std::string failure() const override { return ""; }
  void close() override;

  // The caller's side: the pending requests, each once.
  std::vector<CallerRequest> take();
  // Copies the bytes of a write. False if nobody waits for it any more.
  bool copy_bytes(uint64_t id, uint8_t* into) const;
  // The result of a request that was taken. Ignored if nobody waits for it any more.

  // The bytes of a read; of another length than wanted they fail it with EIO.
  void complete_read(uint64_t id, const uint8_t* bytes, size_t size);
  // Anything but a read.
  void complete(uint64_t id);
  void fail(uint64_t id, int errnum);

 private:
  void finish(uint64_t id, const std::function<void(Transfer&)>& how);

  size_t most_;
  std::function<void()> on_wanted_;
  std::function<void()> on_completed_;
  mutable std::mutex mutex_;  // guards all below
  uint64_t next_id_ = 0;
  std::deque<CallerRequest> wanted_;
  std::map<uint64_t, Transfer*> taken_;    // by id
  std::map<uint64_t, Transfer*> waiting_;  // those of `wanted_`
  std::vector<Transfer*> done_;
};

}  // namespace qb
