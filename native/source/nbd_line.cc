#include "source/nbd_line.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string>
#include <utility>

#include "source/nbd_export.h"

namespace qb {

namespace {

Error timed_out() {
  return {ETIMEDOUT, "connection to the NBD server"};
}

}  // namespace

std::optional<NbdLine::Clock::time_point> NbdLine::deadline(std::chrono::milliseconds timeout,
                                                            bool wanted) const {
  switch (state) {
    case State::kClosed:
      return wanted ? std::optional(retry_at) : std::nullopt;
    case State::kConnecting:
      return connecting ? connecting->deadline() : connection->connect_deadline();
    case State::kReady:
      return asked.empty() ? std::nullopt : std::optional(pace_.due(timeout));
    case State::kGone:
      break;
  }
  return std::nullopt;
}

void NbdLine::start_connecting(const NbdAddress& address, const std::shared_ptr<NbdCancel>& cancel,
                               const std::shared_ptr<EventFd>& raised) {
  connecting = NbdConnecting::start(address, {}, cancel, raised);
  state = State::kConnecting;
}

std::optional<Error> NbdLine::advance(const NbdClientSpec& spec) {
  try {
    if (connecting) {
      connection = connecting->take();
      if (!connection) {
        return Clock::now() < connecting->deadline() ? std::nullopt : std::optional(timed_out());
      }
      connecting.reset();
    }
    if (state != State::kConnecting) return std::nullopt;
    if (!connection->alive()) return connection->lost();
    if (!connection->ready()) {
      bool late = Clock::now() >= connection->connect_deadline();
      return late ? std::optional(timed_out()) : std::nullopt;
    }
    const NbdExport found = describe_export(*connection, {});
    std::string other = found.size == spec.size ? "" : "size";
    if (other.empty() && !spec.fingerprint.empty()) {
      other = difference(spec.fingerprint, found.fingerprint);
    }
    if (!other.empty()) throw Error(ESTALE, "the export has another " + other + " now");
    state = State::kReady;
    return std::nullopt;
  } catch (const NbdError& error) {
    return error;
  }
}

void NbdLine::add(std::unique_ptr<NbdPart> part, uint64_t block_max) {
  if (asked.empty()) pace_.restart(Clock::now(), connection->flow(), part_limit(block_max));
  asked.push_back(std::move(part));
}

std::optional<Error> NbdLine::send_last(bool no_hole) {
  NbdPart& part = *asked.back();
  if (part.send(connection->handle(), no_hole)) {
    if (part.op() == Op::kWrite || part.op() == Op::kZero) wrote = true;
    return std::nullopt;
  }
  const NbdError error = nbd_error();
  if (connection->alive()) throw error;
  return error;
}

std::vector<std::unique_ptr<NbdPart>> NbdLine::take_answered() {
  for (const auto& part : asked) {
    if (!part->broken) continue;
    throw Error(EPROTO, "its answer to a read of " + std::to_string(part->length) + " bytes at " +
                            std::to_string(part->offset) + " has gaps or overlaps");
  }
  const bool alive = connection->alive();
  auto rest = std::stable_partition(asked.begin(), asked.end(), [&](const auto& part) {
    return !(part->completed && (alive || part->error == 0));
  });
  std::vector<std::unique_ptr<NbdPart>> answered(std::make_move_iterator(rest),
                                                 std::make_move_iterator(asked.end()));
  asked.erase(rest, asked.end());
  if (!answered.empty()) pace_.answered(Clock::now(), connection->flow());
  for (const auto& part : answered) {
    if (part->error == 0) lost = 0;
  }
  return answered;
}

std::optional<Error> NbdLine::check_pace(std::chrono::milliseconds timeout) {
  if (!ready() || asked.empty()) return std::nullopt;
  switch (pace_.judge(Clock::now(), connection->flow(), timeout, asked.size())) {
    case NbdPace::Verdict::kFine:
      break;
    case NbdPace::Verdict::kLate:
      return timed_out();
    case NbdPace::Verdict::kEndless:
      throw Error(EPROTO, "its answer never ends");
  }
  return std::nullopt;
}

void NbdLine::close(State as) {
  connecting.reset();
  connection.reset();
  state = as;
  wrote = false;
}

}  // namespace qb
