// What passes between the thread of a comparison and those who feed and watch it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "compare/finding.h"
#include "compare/row_pair.h"
#include "io/engine.h"

namespace qb {

// Thread-safe. Pairs go in and findings come out, both in guest order and both bounded.
class CompareMailbox {
 public:
  enum class Inbox { kPairs, kNothingYet, kClosed };

  // For those outside; see CompareJob, which has methods of the same names.
  void push(std::vector<RowPair> pairs);
  bool has_room() const;
  void close();
  void cancel();
  std::vector<Finding> take_findings();
  uint64_t position() const { return position_; }
  uint64_t bytes_read() const { return read_; }
  bool ended() const { return ended_; }

  // For the thread of the comparison.

  // Takes what was pushed first, and makes room for more.
  Inbox take(std::vector<RowPair>& pairs);
  // False while many findings wait to be taken.
  bool may_find() const;
  // All up to `position` is compared, and this was found there.
  void found(const std::vector<Finding>& findings, uint64_t position);
  // Throws CopyError(kCancelled) after cancel().
  void check_cancelled() const;
  void count_read(uint64_t bytes) { read_ += bytes; }

  // Before the thread starts: `changed` is called on it whenever there is news.
  void on_change(std::function<void()> changed) { changed_ = std::move(changed); }
  // The engine that news from outside wakes; null: none. It must outlive that.
  void set_engine(Engine* engine);
  // Nothing is taken or found any more.
  void end();

 private:
  void wake();

  std::function<void()> changed_;

  mutable std::mutex mutex_;  // guards all down to the engine
  std::deque<std::vector<RowPair>> inbox_;
  std::vector<Finding> findings_;
  bool closed_ = false;
  Engine* engine_ = nullptr;

  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> ended_ = false;
  std::atomic<uint64_t> position_ = 0, read_ = 0;
};

}  // namespace qb
