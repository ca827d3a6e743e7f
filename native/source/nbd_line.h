// One connection of an NBD client: its state, and its requests.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "source/event_fd.h"
#include "source/nbd_cancel.h"
#include "source/nbd_client_spec.h"
#include "source/nbd_connecting.h"
#include "source/nbd_pace.h"
#include "source/nbd_part.h"

namespace qb {

// For the client's thread. Methods that may return an Error return why the connection is lost, or
// cannot be made; the client decides about the consequences.
struct NbdLine {
  using Clock = NbdConnection::Clock;
  enum class State {
    kClosed,      // to be connected when there is something to ask, not before `retry_at`
    kConnecting,  // until it is ready, or its time is over
    kReady,
    kGone,  // could not be made, or not kept; never tried again
  };

  bool ready() const { return state == State::kReady; }
  // Whether the server owes anything.
  bool waits() const { return state == State::kConnecting || !asked.empty(); }
  // When it has to be looked after at the latest. `wanted`: something waits for a connection.
  std::optional<Clock::time_point> deadline(std::chrono::milliseconds timeout, bool wanted) const;

  // Starts to connect; `raised` is raised when advance() has something to do.
  void start_connecting(const NbdAddress& address, const std::shared_ptr<NbdCancel>& cancel,
                        const std::shared_ptr<EventFd>& raised);
  // Goes on with connecting, until it is ready. Throws Error(ESTALE) if it is another export that
  // came back.
  std::optional<Error> advance(const NbdClientSpec& spec);
  // Has a ready line carry out a part, once send_last() was called.
  void add(std::unique_ptr<NbdPart> part, uint64_t block_max);
  // Throws Error if libnbd does not take the request.
  std::optional<Error> send_last(bool no_hole);
  // The parts that were answered; of a lost connection, those that succeeded. Throws Error(EPROTO)
  // if an answer cannot be one. REQUIRES: ready().
  std::vector<std::unique_ptr<NbdPart>> take_answered();
  // Throws Error(EPROTO) if an answer never ends.
  std::optional<Error> check_pace(std::chrono::milliseconds timeout);
  // Closes the connection, which may write into the memory of its parts until then. These are left
  // in `asked`.
  void close(State as);

  State state = State::kClosed;
  // Until there is a connection, which may still have to be made ready.
  std::shared_ptr<NbdConnecting> connecting;
  std::unique_ptr<NbdConnection> connection;  // while connecting and ready
  Clock::time_point retry_at;
  unsigned lost = 0;  // times since it last brought something
  std::vector<std::unique_ptr<NbdPart>> asked;
  bool wrote = false;  // since it was last flushed

 private:
  NbdPace pace_;
};

}  // namespace qb
