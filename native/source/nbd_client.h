// Reads from an NBD export and writes to it: several connections with many requests each, driven by
// one thread.
#pragma once

#include <cstddef>
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
#include "source/nbd_client_spec.h"
#include "source/nbd_line.h"
#include "source/nbd_part.h"
#include "source/nbd_patience.h"

namespace qb {

// Takes transfers of every kind; a kSync is done at once where the server can't flush. By the NBD
// protocol a flush covers the writes that were answered before it was sent: submit it once
// everything before it was collected. It covers those of other connections only where the server
// says multi-conn; elsewhere each connection that wrote is flushed.
//
// Every connection has a state of its own, and one poll waits for all of them: those that cannot be
// made, or not yet, hold up nobody. It gives up when none is left.
class NbdClient : public Remote {
 public:
  // Connects on its own thread. `finished` is called there whenever collect() has something. Throws
  // Error.
  NbdClient(const NbdClientSpec& spec, std::function<void()> finished);
  // Closes the connections, whatever they wait for.
  ~NbdClient() override { NbdClient::close(); }
  NbdClient(const NbdClient&) = delete;
  NbdClient& operator=(const NbdClient&) = delete;

  void submit(Transfer* transfer) override;
  void collect(std::vector<Transfer*>& done) override;
  size_t in_flight() const override { return in_flight_; }
  unsigned alignment() const override { return spec_.block_min; }
  // Once there is one, whatever is submitted later fails as well.
  std::string failure() const override;
  void close() override;

 private:
  using Clock = NbdConnection::Clock;

  void run() noexcept;
  bool take_submitted();
  bool waits() const;
  void begin_waiting();
  void start_connecting();
  void hand_out();
  void send_last(NbdLine& line);
  void flush(std::unique_ptr<NbdPart> part);
  void wait();
  std::optional<Clock::time_point> next_deadline() const;
  void look_after(NbdLine& line);
  void retire(NbdLine& line);
  void lose(NbdLine& line, const Error& why);
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
  std::vector<std::unique_ptr<NbdLine>> lines_;
  NbdPatience patience_;
  bool waited_ = false;  // for the server, the last time around
  std::thread thread_;
};

}  // namespace qb
