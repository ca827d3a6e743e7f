// Reads from an NBD export and writes to it: several connections with many requests each, driven by
// one thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "io/remote.h"
#include "source/event_fd.h"
#include "source/nbd_connecting.h"
#include "source/nbd_part.h"
#include "source/nbd_patience.h"

namespace qb {

struct NbdClientSpec {
  NbdAddress address;
  // Both of the export when it was opened (nbd_export.h): with others it is another disk. Size in
  // bytes; an empty fingerprint is that of any.
  uint64_t size = 0;
  std::string fingerprint = "";
  unsigned connections = 1;       // at most: as many as the server takes
  unsigned requests = 16;         // in flight on each connection
  unsigned block_min = 1;         // of offsets and lengths, bytes
  uint64_t block_max = 32 << 20;  // of one request's payload, bytes
  // Times in a row that a connection which is lost, or cannot be made, is made again. 0 for who may
  // not go on with another server than the one that took the writes: what it had not flushed may be
  // gone. Then the first connection that is lost is the end.
  unsigned retries = 6;
  // Whether zeroes are to take up space in the export (NBD_CMD_FLAG_NO_HOLE).
  bool no_hole = false;
  // Becomes the first connection, if it is still there, before any is made: a server may serve a
  // single client, and end with it. Ready, idle, and moved from.
  std::shared_ptr<std::unique_ptr<NbdConnection>> adopted = nullptr;
};

// Takes transfers of every kind; a kSync is done at once where the server can't flush. By the NBD
// protocol a flush covers the writes that were answered before it was sent: submit it once
// everything before it was collected. It covers those of other connections only where the server
// says multi-conn; elsewhere each connection that wrote is flushed.
//
// Every connection has a state of its own, and one poll waits for all of them: those that cannot be
// made, or not yet, hold up nobody. It gives up when none is left.
class NbdClient : public Remote {
 public:
  // Connects on its own thread. `finished` is called there whenever collect() has something.
  NbdClient(const NbdClientSpec& spec, std::function<void()> finished);
  // Closes the connections, whatever they wait for.
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
  bool waits() const;
  void begin_waiting();
  void start_connecting();
  void check_connecting(Line& line);
  void check_ready(Line& line);
  void hand_out();
  void add(Line& line, std::unique_ptr<NbdPart> part);
  void send_last(Line& line);
  void flush(std::unique_ptr<NbdPart> part);
  void wait();
  std::optional<Clock::time_point> next_deadline() const;
  void check_pace(Line& line);
  void retire(Line& line);
  void lose(Line& line, const Error& why);
  void finish(NbdPart& part, int error);
  void give_up(const Error& why);

  NbdClientSpec spec_;
  std::function<void()> finished_;
  std::shared_ptr<EventFd> wake_ = std::make_shared<EventFd>();
  std::shared_ptr<NbdCancel> cancel_;
  size_t in_flight_ = 0;  // the owner's

  mutable std::mutex mutex_;  // guards the four below
  std::vector<Transfer*> submitted_;
  std::vector<Transfer*> done_;
  std::string failure_;
  bool stopping_ = false;

  // The thread's.
  std::deque<std::unique_ptr<NbdPart>> waiting_;
  std::optional<Error> given_up_;
  std::vector<std::unique_ptr<Line>> lines_;
  NbdPatience patience_;
  bool waited_ = false;  // for the server, the last time around
  std::thread thread_;
};

}  // namespace qb
