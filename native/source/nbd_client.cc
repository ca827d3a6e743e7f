#include "source/nbd_client.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/job_thread.h"

namespace qb {

namespace {

// The first wait before a lost connection is made again; doubled each time.
constexpr std::chrono::milliseconds kFirstWait{100};

}  // namespace

NbdClient::NbdClient(const NbdClientSpec& spec, std::function<void()> finished)
    : spec_(spec), finished_(std::move(finished)), cancel_(std::make_shared<NbdCancel>()) {
  for (unsigned i = 0; i < spec_.connections; i++) lines_.push_back(std::make_unique<NbdLine>());
  if (spec_.adopted && *spec_.adopted) {
    lines_[0]->connection = std::move(*spec_.adopted);
    lines_[0]->state = NbdLine::State::kReady;
  }
  thread_ = start_thread([this] { run(); });
}

void NbdClient::close() {
  if (!thread_.joinable()) return;
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
      for (auto& line : lines_) look_after(*line);
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

bool NbdClient::waits() const {
  return std::any_of(lines_.begin(), lines_.end(), [](const auto& line) { return line->waits(); });
}

void NbdClient::begin_waiting() {
  const bool before = std::exchange(waited_, waits());
  if (waited_ && !before) patience_.begin(Clock::now());
}

// Starts the connections that are missing while there is something to ask.
void NbdClient::start_connecting() {
  if (waiting_.empty()) return;
  for (auto& line : lines_) {
    if (line->state != NbdLine::State::kClosed || line->retry_at > Clock::now()) continue;
    line->start_connecting(spec_.address, cancel_, wake_);
  }
}

void NbdClient::hand_out() {
  while (!waiting_.empty()) {
    NbdLine* least = nullptr;
    for (auto& line : lines_) {
      if (!line->ready()) continue;
      if (!least || line->asked.size() < least->asked.size()) least = line.get();
    }
    if (!least || least->asked.size() >= spec_.requests) return;
    auto part = std::move(waiting_.front());
    waiting_.pop_front();
    if (part->op() == Op::kSync) {
      flush(std::move(part));
    } else {
      least->add(std::move(part), spec_.block_max);
      send_last(*least);
    }
  }
}

// The line may be lost by it. Throws Error if libnbd does not take the request.
void NbdClient::send_last(NbdLine& line) {
  if (std::optional<Error> why = line.send_last(spec_.no_hole)) lose(line, *why);
}

// REQUIRES: a line is ready.
void NbdClient::flush(std::unique_ptr<NbdPart> part) {
  std::vector<NbdLine*> lines;
  NbdLine* any = nullptr;
  for (auto& line : lines_) {
    if (!line->ready()) continue;
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
    auto more = std::make_unique<NbdPart>(NbdPart{part->task, nullptr, 0, 0});
    lines[i]->add(std::move(more), spec_.block_max);
  }
  lines[0]->add(std::move(part), spec_.block_max);
  for (NbdLine* line : lines) {
    // Unanswered writes are left to the next flush.
    line->wrote = std::any_of(line->asked.begin(), line->asked.end(), [](const auto& one) {
      return one->op() == Op::kWrite || one->op() == Op::kZero;
    });
    send_last(*line);
  }
}

// When a line has to be looked after at the latest.
std::optional<NbdClient::Clock::time_point> NbdClient::next_deadline() const {
  std::optional<Clock::time_point> first;
  for (const auto& line : lines_) {
    auto deadline = line->deadline(spec_.address.timeout, !waiting_.empty());
    if (deadline) first = first ? std::min(*first, *deadline) : *deadline;
  }
  return first;
}

void NbdClient::wait() {
  std::vector<pollfd> fds{{wake_->fd(), POLLIN, 0}};
  std::vector<NbdLine*> polled;
  for (auto& line : lines_) {
    if (!line->connection) continue;
    // Sending may have found it gone: libnbd still takes the request, and has nothing left
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

void NbdClient::look_after(NbdLine& line) {
  if (std::optional<Error> why = line.advance(spec_)) lose(line, *why);
  retire(line);
  if (std::optional<Error> why = line.check_pace(spec_.address.timeout)) lose(line, *why);
}

// Takes the answers of a connection; of a lost one, repeats the unanswered requests. Throws
// Error(EPROTO) if an answer cannot be one.
void NbdClient::retire(NbdLine& line) {
  if (!line.ready()) return;
  const auto answered = line.take_answered();
  if (!answered.empty()) patience_.answered(Clock::now());
  for (const auto& part : answered) finish(*part, part->error);
  if (!line.connection->alive()) lose(line, line.connection->lost());
}

// A connection that is lost, or could not be made. Throws `why` if none is left, or if writes may
// be lost with it; and Error(ETIMEDOUT) if losses take more time than answers. The connection must
// be closed before anything is asked again: until then it may still write into the memory.
void NbdClient::lose(NbdLine& line, const Error& why) {
  const bool was_ready = line.ready();
  const bool silent = why.errnum() == ETIMEDOUT;
  line.close(NbdLine::State::kClosed);
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
  line.state = NbdLine::State::kGone;
  if (std::all_of(lines_.begin(), lines_.end(),
                  [](const auto& one) { return one->state == NbdLine::State::kGone; })) {
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
    line->close(NbdLine::State::kGone);
    for (auto& part : std::exchange(line->asked, {})) finish(*part, why.errnum());
  }
  for (auto& part : std::exchange(waiting_, {})) finish(*part, why.errnum());
}

}  // namespace qb
