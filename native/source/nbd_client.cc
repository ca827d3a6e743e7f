#include "source/nbd_client.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "source/nbd_export.h"
#include "source/nbd_pace.h"

namespace qb {

namespace {

// The first wait before a lost connection is made again; doubled each time.
constexpr std::chrono::milliseconds kFirstWait{100};

}  // namespace

// A connection and what it was asked.
struct NbdClient::Line {
  enum class State {
    kClosed,      // to be connected when there is something to ask, not before `retry_at`
    kConnecting,  // until it is ready, or its time is over
    kReady,
    kGone,  // could not be made, or not kept; never tried again
  };
  State state = State::kClosed;
  // Until there is a connection, which may still have to be made ready.
  std::shared_ptr<NbdConnecting> connecting;
  std::unique_ptr<NbdConnection> connection;  // while connecting and ready
  Clock::time_point retry_at;
  unsigned lost = 0;  // times since it last brought something
  std::vector<std::unique_ptr<NbdPart>> asked;
  NbdPace pace;
  bool wrote = false;  // since it was last flushed
};

NbdClient::NbdClient(const NbdClientSpec& spec, std::function<void()> finished)
    : spec_(spec), finished_(std::move(finished)), cancel_(std::make_shared<NbdCancel>()) {
  for (unsigned i = 0; i < spec_.connections; i++) lines_.push_back(std::make_unique<Line>());
  if (spec_.adopted && *spec_.adopted) {
    lines_[0]->connection = std::move(*spec_.adopted);
    lines_[0]->state = Line::State::kReady;
  }
  thread_ = std::thread([this] { run(); });
}

NbdClient::~NbdClient() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  cancel_->cancel();
  wake_->raise();
  thread_.join();
}

void NbdClient::submit(Transfer* transfer) {
  if (transfer->op != Op::kZero) {
    transfer->length = transfer->iov.empty() ? 0 : transfer->iov[0].iov_len;
  }
  transfer->done = 0;
  transfer->error = 0;
  in_flight_++;
  {
    std::lock_guard lock(mutex_);
    submitted_.push_back(transfer);
  }
  wake_->raise();
}

void NbdClient::collect(std::vector<Transfer*>& done) {
  std::lock_guard lock(mutex_);
  in_flight_ -= done_.size();
  done.insert(done.end(), done_.begin(), done_.end());
  done_.clear();
}

std::string NbdClient::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

void NbdClient::run() noexcept {
  pthread_setname_np(pthread_self(), "qcow2-nbd");
  while (take_submitted()) {
    try {
      if (given_up_) give_up(*given_up_);
      start_connecting();
      hand_out();
      begin_waiting();
      wait();
      for (auto& line : lines_) {
        check_connecting(*line);
        check_ready(*line);
        retire(*line);
        check_pace(*line);
      }
    } catch (const Error& error) {
      give_up(error);
    }
  }
  for (auto& line : lines_) line->connection.reset();
}

// False when the owner wants to end.
bool NbdClient::take_submitted() {
  std::vector<Transfer*> transfers;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    transfers.swap(submitted_);
  }
  for (Transfer* transfer : transfers) split(transfer, spec_.block_max, waiting_);
  return true;
}

// Whether the server owes anything.
bool NbdClient::waits() const {
  return std::any_of(lines_.begin(), lines_.end(), [](const auto& line) {
    return line->state == Line::State::kConnecting || !line->asked.empty();
  });
}

void NbdClient::begin_waiting() {
  const bool before = std::exchange(waited_, waits());
  if (waited_ && !before) patience_.begin(Clock::now());
}

// Starts the connections that are missing while there is something to ask.
void NbdClient::start_connecting() {
  if (waiting_.empty()) return;
  for (auto& line : lines_) {
    if (line->state != Line::State::kClosed || line->retry_at > Clock::now()) continue;
    line->connecting = NbdConnecting::start(spec_.address, {}, cancel_, wake_);
    line->state = Line::State::kConnecting;
  }
}

// Takes over what was started, which wakes this thread.
void NbdClient::check_connecting(Line& line) {
  if (!line.connecting) return;
  try {
    line.connection = line.connecting->take();
    if (line.connection) {
      line.connecting.reset();
    } else if (Clock::now() >= line.connecting->deadline()) {
      lose(line, Error(ETIMEDOUT, "connection to the NBD server"));
    }
  } catch (const NbdError& error) {
    lose(line, error);
  }
}

// Throws Error(ESTALE) if it is another export that came back.
void NbdClient::check_ready(Line& line) {
  if (line.state != Line::State::kConnecting || !line.connection) return;
  try {
    if (!line.connection->alive()) return lose(line, line.connection->lost());
    if (!line.connection->ready()) {
      if (Clock::now() < line.connection->connect_deadline()) return;
      return lose(line, Error(ETIMEDOUT, "connection to the NBD server"));
    }
    const NbdExport found = describe_export(*line.connection, {});
    std::string other = found.size == spec_.size ? "" : "size";
    if (other.empty() && !spec_.fingerprint.empty()) {
      other = difference(spec_.fingerprint, found.fingerprint);
    }
    if (!other.empty()) throw Error(ESTALE, "the export has another " + other + " now");
    line.state = Line::State::kReady;
  } catch (const NbdError& error) {
    lose(line, error);
  }
}

void NbdClient::hand_out() {
  while (!waiting_.empty()) {
    Line* least = nullptr;
    for (auto& line : lines_) {
      if (line->state != Line::State::kReady) continue;
      if (!least || line->asked.size() < least->asked.size()) least = line.get();
    }
    if (!least || least->asked.size() >= spec_.requests) return;
    auto part = std::move(waiting_.front());
    waiting_.pop_front();
    if (part->op() == Op::kSync) {
      flush(std::move(part));
    } else {
      add(*least, std::move(part));
      send_last(*least);
    }
  }
}

// Has a ready line carry out a part, once send_last() was called.
void NbdClient::add(Line& line, std::unique_ptr<NbdPart> part) {
  if (line.asked.empty()) {
    line.pace.restart(Clock::now(), line.connection->flow(), part_limit(spec_.block_max));
  }
  line.asked.push_back(std::move(part));
}

// The line may be lost by it. Throws Error if libnbd does not take the request.
void NbdClient::send_last(Line& line) {
  NbdPart& part = *line.asked.back();
  if (part.send(line.connection->handle(), spec_.no_hole)) {
    if (part.op() == Op::kWrite || part.op() == Op::kZero) line.wrote = true;
    return;
  }
  const NbdError error = nbd_error();
  if (line.connection->alive()) throw error;
  lose(line, error);
}

// REQUIRES: a line is ready.
void NbdClient::flush(std::unique_ptr<NbdPart> part) {
  std::vector<Line*> lines;
  Line* any = nullptr;
  for (auto& line : lines_) {
    if (line->state != Line::State::kReady) continue;
    any = line.get();
    if (line->wrote) lines.push_back(any);
  }
  const NbdLibrary& nbd = nbd_library();
  nbd_handle* handle = any->connection->handle();
  if (nbd.can_flush(handle) != 1) return finish(*part, 0);
  if (lines.empty() || nbd.can_multi_conn(handle) == 1) lines = {any};
  // All parts are with their lines before the first is sent: whatever fails then finds them there.
  part->task->parts_left += lines.size() - 1;
  for (size_t i = 1; i < lines.size(); i++) {
    add(*lines[i], std::make_unique<NbdPart>(NbdPart{part->task, nullptr, 0, 0}));
  }
  add(*lines[0], std::move(part));
  for (Line* line : lines) {
    // What it wrote and has not answered yet is left to the next flush.
    line->wrote = std::any_of(line->asked.begin(), line->asked.end(), [](const auto& one) {
      return one->op() == Op::kWrite || one->op() == Op::kZero;
    });
    send_last(*line);
  }
}

// When somebody has to be looked after at the latest.
std::optional<NbdClient::Clock::time_point> NbdClient::next_deadline() const {
  std::optional<Clock::time_point> first;
  auto consider = [&](Clock::time_point at) { first = first ? std::min(*first, at) : at; };
  for (const auto& line : lines_) {
    switch (line->state) {
      case Line::State::kClosed:
        if (!waiting_.empty()) consider(line->retry_at);
        break;
      case Line::State::kConnecting:
        consider(line->connecting ? line->connecting->deadline()
                                  : line->connection->connect_deadline());
        break;
      case Line::State::kReady:
        if (!line->asked.empty()) consider(line->pace.due(spec_.address.timeout));
        break;
      case Line::State::kGone:
        break;
    }
  }
  return first;
}

void NbdClient::wait() {
  std::vector<pollfd> fds{{wake_->fd(), POLLIN, 0}};
  std::vector<Line*> polled;
  for (auto& line : lines_) {
    if (!line->connection) continue;
    // Sending may have found it gone: libnbd takes the request all the same, and has nothing left
    // that could be waited for.
    if (!line->connection->alive()) return;
    fds.push_back({line->connection->fd(), line->connection->events(), 0});
    polled.push_back(line.get());
  }
  int timeout = -1;
  if (auto deadline = next_deadline()) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
    timeout = static_cast<int>(std::max<int64_t>(0, left));
  }
  if (poll(fds.data(), fds.size(), timeout) < 0) {
    if (errno == EINTR) return;
    throw Error(errno, "poll");
  }
  if (fds[0].revents != 0) wake_->clear();
  for (size_t i = 0; i < polled.size(); i++) {
    if (fds[i + 1].revents != 0) polled[i]->connection->notify(fds[i + 1].revents);
  }
}

void NbdClient::check_pace(Line& line) {
  if (line.state != Line::State::kReady || line.asked.empty()) return;
  switch (line.pace.judge(Clock::now(), line.connection->flow(), spec_.address.timeout,
                          line.asked.size())) {
    case NbdPace::Verdict::kFine:
      return;
    case NbdPace::Verdict::kLate:
      return lose(line, Error(ETIMEDOUT, "connection to the NBD server"));
    case NbdPace::Verdict::kEndless:
      throw Error(EPROTO, "its answer never ends");
  }
}

// Takes the answers of a connection; of a lost one, asks again what was not answered. Throws
// Error(EPROTO) if an answer cannot be one.
void NbdClient::retire(Line& line) {
  if (line.state != Line::State::kReady) return;
  bool alive = line.connection->alive();
  for (const auto& part : line.asked) {
    if (!part->broken) continue;
    throw Error(EPROTO, "its answer to a read of " + std::to_string(part->length) + " bytes at " +
                            std::to_string(part->offset) + " has gaps or overlaps");
  }
  auto answered = [&](const std::unique_ptr<NbdPart>& part) {
    return part->completed && (alive || part->error == 0);
  };
  auto rest = std::stable_partition(line.asked.begin(), line.asked.end(),
                                    [&](const auto& part) { return !answered(part); });
  if (rest != line.asked.end()) {
    const auto now = Clock::now();
    line.pace.answered(now, line.connection->flow());
    patience_.answered(now);
  }
  for (auto part = rest; part != line.asked.end(); part++) {
    if ((*part)->error == 0) line.lost = 0;
    finish(**part, (*part)->error);
  }
  line.asked.erase(rest, line.asked.end());
  if (!alive) lose(line, line.connection->lost());
}

// A connection that is lost, or could not be made. Throws `why` if none is left, or if writes may
// be lost with it; and Error(ETIMEDOUT) if losses take more time than answers. The connection must
// be closed before anything is asked again: until then it may still write into the memory.
void NbdClient::lose(Line& line, const Error& why) {
  const bool was_ready = line.state == Line::State::kReady;
  const bool silent = why.errnum() == ETIMEDOUT;
  line.connecting.reset();
  line.connection.reset();
  line.state = Line::State::kClosed;
  line.wrote = false;
  // A server that was silent is asked once more, on a new connection; one that cannot even be
  // connected to has had its time.
  line.lost += !silent ? 1 : was_ready ? std::max(1u, spec_.retries) : spec_.retries + 1;
  if (was_ready && spec_.retries == 0) throw why;
  for (auto part = line.asked.rbegin(); part != line.asked.rend(); part++) {
    waiting_.push_front(std::move(*part));
  }
  line.asked.clear();
  if (!patience_.lost(Clock::now(), spec_.address.timeout)) {
    throw silent ? Error(ETIMEDOUT, "it falls silent again and again") : why;
  }
  if (line.lost <= spec_.retries) {
    const unsigned doublings = silent ? 0 : std::min(line.lost - 1, 10u);
    line.retry_at = Clock::now() + kFirstWait * (1u << doublings);
    return;
  }
  line.state = Line::State::kGone;
  if (std::all_of(lines_.begin(), lines_.end(),
                  [](const auto& one) { return one->state == Line::State::kGone; })) {
    throw why;
  }
}

void NbdClient::finish(NbdPart& part, int error) {
  Transfer* transfer = part.task->transfer;
  if (error != 0) {
    transfer->error = error;
  } else {
    transfer->done += part.length;
  }
  if (--part.task->parts_left > 0) return;
  {
    std::lock_guard lock(mutex_);
    done_.push_back(transfer);
  }
  finished_();
}

// The export can't be reached: everything asked fails with that, now and later.
void NbdClient::give_up(const Error& why) {
  given_up_ = why;
  {
    std::lock_guard lock(mutex_);
    failure_ = why.context();
  }
  for (auto& line : lines_) {
    line->connecting.reset();
    line->connection.reset();
    line->state = Line::State::kGone;
    for (auto& part : std::exchange(line->asked, {})) finish(*part, why.errnum());
  }
  for (auto& part : std::exchange(waiting_, {})) finish(*part, why.errnum());
}

}  // namespace qb
