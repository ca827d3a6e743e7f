// The seam between the thread of a job and those who feed and watch it, whatever the job does.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "copy/error.h"
#include "io/engine.h"

namespace qb {

// Thread-safe. The plan goes in, in batches of items and bounded by has_room().
template <typename Item>
class JobMailbox {
 public:
  enum class Inbox { kItems, kNothingYet, kClosed };

  // `job`: its name in failures.
  explicit JobMailbox(const char* job) : job_(job) {}
  JobMailbox(const JobMailbox&) = delete;
  JobMailbox& operator=(const JobMailbox&) = delete;

  // For those outside; see CopyJob, which has methods of the same names.
  void push(std::vector<Item> items) {
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      inbox_.push_back(std::move(items));
    }
    wake();
  }
  bool has_room() const {
    std::lock_guard lock(mutex_);
    return inbox_.size() < kInbox;
  }
  void close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake();
  }
  void cancel() {
    cancelled_ = true;
    wake();
  }
  bool ended() const { return ended_; }
  // Wakes the job's thread.
  void wake() {
    std::lock_guard lock(mutex_);
    if (engine_) engine_->wake();
  }

  // For the job's thread.

  // Takes the oldest item, which allows pushing another.
  Inbox take(std::vector<Item>& items) {
    {
      std::lock_guard lock(mutex_);
      if (inbox_.empty()) return closed_ ? Inbox::kClosed : Inbox::kNothingYet;
      items = std::move(inbox_.front());
      inbox_.pop_front();
    }
    notify();
    return Inbox::kItems;
  }
  // Throws CopyError(kCancelled) after cancel().
  void check_cancelled() const {
    if (cancelled_) throw CopyError(Failure::kCancelled, ECANCELED, job_);
  }
  // Notifies the outside of events.
  void notify() { changed_(); }
  // The engine that is woken by rows and commands; null: none. It must outlive the mailbox's use.
  void set_engine(Engine* engine) {
    std::lock_guard lock(mutex_);
    engine_ = engine;
  }
  // Nothing is taken or reported any more.
  void end() {
    {
      std::lock_guard lock(mutex_);
      inbox_.clear();
      ended_ = true;
    }
    notify();
  }

  // Before the thread starts: `changed` is called on it by notify().
  void on_change(std::function<void()> changed) { changed_ = std::move(changed); }

 private:
  // Pushes that may wait: one being consumed, one ready, so that the plan is never waited for.
  static constexpr size_t kInbox = 2;

  const char* job_;
  std::function<void()> changed_;

  mutable std::mutex mutex_;  // guards all down to the engine
  std::deque<std::vector<Item>> inbox_;
  bool closed_ = false;
  Engine* engine_ = nullptr;

  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> ended_ = false;
};

}  // namespace qb
