// Reads that the program which uses the library does by itself: a source of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "io/remote.h"

namespace qb {

// A read that the caller is asked for; bytes.
struct WantedRead {
  uint64_t id;
  uint64_t offset;
  uint64_t length;
};

// Hands the reads of a job over to the caller's thread, and what they bring back. Thread-safe.
class CallerReads : public Remote {
 public:
  // Called when take() has something, and when collect() has. To be set before submit().
  void on_wanted(std::function<void()> told) { on_wanted_ = std::move(told); }
  void on_completed(std::function<void()> told) { on_completed_ = std::move(told); }

  void submit(Transfer* transfer) override;
  void collect(std::vector<Transfer*>& done) override;
  size_t in_flight() const override;
  unsigned alignment() const override { return 1; }
  std::string failure() const override { return ""; }
  void close() override;

  // The caller's side: what was asked since it was called last.
  std::vector<WantedRead> take();
  // The bytes of a read; of another length than wanted they fail it with EIO. Nothing happens if
  // nobody waits for it any more.
  void complete_read(uint64_t id, const uint8_t* bytes, size_t size);
  void fail_read(uint64_t id, int errnum);

 private:
  void finish(uint64_t id, const std::function<void(Transfer&)>& how);

  std::function<void()> on_wanted_;
  std::function<void()> on_completed_;
  mutable std::mutex mutex_;  // guards all below
  uint64_t next_id_ = 0;
  std::vector<WantedRead> wanted_;
  std::map<uint64_t, Transfer*> waiting_;
  std::vector<Transfer*> done_;
};

}  // namespace qb
