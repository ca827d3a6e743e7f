// Reads from an NBD export: several connections with many requests each, driven by one thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/queue.h"
#include "source/nbd_connection.h"

namespace qb {

struct NbdReadSpec {
  NbdAddress address;
  uint64_t size = 0;  // of the export when it was opened, bytes: with another it is another disk
  unsigned connections = 1;
  unsigned requests = 16;         // in flight on each connection
  unsigned block_min = 1;         // of offsets and lengths, bytes
  uint64_t block_max = 32 << 20;  // of one request, bytes
  unsigned retries = 6;           // times in a row that a lost connection is made again
};

// Takes the same transfers as Queue (reads of one iov), and gives them back in any order.
// Thread-safety: submit(), collect() and in_flight() are for one thread, the owner's.
class NbdReads {
 public:
  // Connects on its own thread. `finished` is called there whenever collect() has something.
  NbdReads(const NbdReadSpec& spec, std::function<void()> finished);
  // Waits until no request can write into memory any more: connections are closed.
  ~NbdReads();
  NbdReads(const NbdReads&) = delete;
  NbdReads& operator=(const NbdReads&) = delete;

  void submit(Transfer* transfer);
  // Appends the finished ones. `error` of a transfer is an errno; failure() has the words.
  void collect(std::vector<Transfer*>& done);
  size_t in_flight() const { return in_flight_; }
  unsigned alignment() const { return spec_.block_min; }
  // Why the export could not be reached any more; empty when single reads failed.
  std::string failure() const;

 private:
  using Clock = NbdConnection::Clock;
  struct Part;
  struct Line;

  void run() noexcept;
  bool take_submitted();
  void mend_lines();
  bool pause(std::chrono::milliseconds time);
  void hand_out();
  void wait();
  void retire(Line& line);
  void lose(Line& line, bool silent);
  void finish(Part& part, int error);
  void give_up(const Error& why);
  static int on_done(void* data, int* error) noexcept;

  NbdReadSpec spec_;
  std::function<void()> finished_;
  int wake_fd_;
  size_t in_flight_ = 0;  // the owner's

  mutable std::mutex mutex_;  // guards the four below
  std::vector<Transfer*> submitted_;
  std::vector<Transfer*> done_;
  std::string failure_;
  bool stopping_ = false;
  std::condition_variable stop_;

  // The thread's.
  std::deque<std::unique_ptr<Part>> waiting_;
  std::vector<std::unique_ptr<Line>> lines_;
  std::thread thread_;
};

}  // namespace qb
