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

// The desk between a copy's thread, which asks, and the caller's, which brings. Thread-safe.
class CallerReads : public Remote {
 public:
  // Who is told: that take() has something, and that collect() has. To be set before submit().
  void on_asked(std::function<void()> told) { asked_ = std::move(told); }
  void on_brought(std::function<void()> told) { brought_ = std::move(told); }

  void submit(Transfer* transfer) override;
  void collect(std::vector<Transfer*>& done) override;
  size_t in_flight() const override;
  unsigned alignment() const override { return 1; }
  std::string failure() const override { return ""; }
  // Nothing touches the memory of what was submitted any more.
  void close();

  // The caller's side: what was asked since it was called last.
  std::vector<WantedRead> take();
  // The bytes of a read; of another length than wanted they fail it with EIO. Nothing happens if
  // nobody waits for it any more.
  void bring(uint64_t id, const uint8_t* bytes, size_t size);
  void fail(uint64_t id, int errnum);

 private:
  void finish(uint64_t id, const std::function<void(Transfer&)>& how);

  std::function<void()> asked_;
  std::function<void()> brought_;
  mutable std::mutex mutex_;  // guards all below
  uint64_t next_id_ = 0;
  std::vector<WantedRead> wanted_;
  std::map<uint64_t, Transfer*> waiting_;
  std::vector<Transfer*> done_;
};

}  // namespace qb
