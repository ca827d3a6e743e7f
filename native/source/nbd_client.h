// Reads from an NBD export and writes to it: several connections with many requests each, driven by
// one thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "io/remote.h"
#include "source/nbd_connection.h"
#include "source/nbd_part.h"

namespace qb {

struct NbdClientSpec {
  NbdAddress address;
  uint64_t size = 0;  // of the export when it was opened, bytes: with another it is another disk
  unsigned connections = 1;
  unsigned requests = 16;         // in flight on each connection
  unsigned block_min = 1;         // of offsets and lengths, bytes
  uint64_t block_max = 32 << 20;  // of one request's payload, bytes
  // Times in a row that a lost connection is made again. 0 for who may not go on with another
  // server than the one that took the writes: what it had not flushed may be gone.
  unsigned retries = 6;
  // Whether zeroes are to take up space in the export (NBD_CMD_FLAG_NO_HOLE).
  bool no_hole = false;
  // What the first connection is taken from, if it is still there, before any is made: a server may
  // serve a single client, and end with it. Idle, and used by nobody else.
  std::shared_ptr<NbdConnection> adopted = nullptr;
};

// Takes transfers of every kind; a kSync is done at once where the server can't flush. By the NBD
// protocol it covers the writes that were answered before it was sent, and where the server says
// multi-conn those of all connections: submit it once everything before it was collected.
class NbdClient : public Remote {
 public:
  // Connects on its own thread. `finished` is called there whenever collect() has something.
  NbdClient(const NbdClientSpec& spec, std::function<void()> finished);
  // Closes the connections.
  ~NbdClient() override;
  NbdClient(const NbdClient&) = delete;
  NbdClient& operator=(const NbdClient&) = delete;

  void submit(Transfer* transfer) override;
  void collect(std::vector<Transfer*>& done) override;
  size_t in_flight() const override { return in_flight_; }
  unsigned alignment() const override { return spec_.block_min; }
  // Once there is one, whatever is submitted later fails as well.
  std::string failure() const override;

 private:
  using Clock = NbdConnection::Clock;
  struct Line;

  void run() noexcept;
  bool take_submitted();
  void mend_lines();
  bool pause(std::chrono::milliseconds time);
  void hand_out();
  void wait();
  void retire(Line& line);
  void lose(Line& line, bool silent);
  void finish(NbdPart& part, int error);
  void give_up(const Error& why);

  NbdClientSpec spec_;
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
  std::deque<std::unique_ptr<NbdPart>> waiting_;
  std::optional<Error> given_up_;
  std::vector<std::unique_ptr<Line>> lines_;
  std::thread thread_;
};

}  // namespace qb
