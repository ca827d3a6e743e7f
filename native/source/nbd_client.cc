#include "source/nbd_client.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace qb {

namespace {

// The first wait before a lost connection is made again; doubled each time.
constexpr std::chrono::milliseconds kFirstWait{100};

}  // namespace

// One connection and what it was asked.
struct NbdClient::Line {
  std::unique_ptr<NbdConnection> connection;
  std::vector<std::unique_ptr<NbdPart>> asked;
  unsigned lost = 0;        // times since it last brought something
  Clock::time_point heard;  // when it last answered, or was first asked
};

NbdClient::NbdClient(const NbdClientSpec& spec, std::function<void()> finished)
    : spec_(spec),
      finished_(std::move(finished)),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  check_errno(wake_fd_ >= 0, "eventfd");
  for (unsigned i = 0; i < spec_.connections; i++) lines_.push_back(std::make_unique<Line>());
  // Moved out of what the caller may hold on to: the connection must end when it is lost.
  if (spec_.adopted && spec_.adopted->handle()) {
    lines_[0]->connection = std::make_unique<NbdConnection>(std::move(*spec_.adopted));
  }
  thread_ = std::thread([this] { run(); });
}

NbdClient::~NbdClient() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  eventfd_write(wake_fd_, 1);
  thread_.join();
  close(wake_fd_);
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
  eventfd_write(wake_fd_, 1);
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
      mend_lines();
      hand_out();
      wait();
      for (auto& line : lines_) retire(*line);
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

// Makes the connections that are missing while there is something to ask. Throws Error when one
// can't be made however often it is tried.
void NbdClient::mend_lines() {
  if (waiting_.empty()) return;
  for (auto& line : lines_) {
    auto wait = kFirstWait;
    for (unsigned tries = 0; !line->connection; tries++) {
      try {
        auto made = std::make_unique<NbdConnection>(spec_.address, std::vector<std::string>());
        if (nbd_library().get_size(made->handle()) != static_cast<int64_t>(spec_.size)) {
          give_up(Error(ESTALE, "the export has another size now"));
          return;
        }
        line->connection = std::move(made);
      } catch (const Error& error) {
        // Who is silent has used up the patience of a whole timeout.
        if (tries == spec_.retries || error.errnum() == ETIMEDOUT) throw;
        if (!pause(wait)) return;
        wait *= 2;
      }
    }
  }
}

// Sleeps, unless the owner wants to end.
bool NbdClient::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stop_.wait_for(lock, time, [this] { return stopping_; });
}

void NbdClient::hand_out() {
  while (!waiting_.empty()) {
    auto least = std::min_element(lines_.begin(), lines_.end(), [](const auto& a, const auto& b) {
      return a->asked.size() < b->asked.size();
    });
    Line& line = **least;
    if (!line.connection || line.asked.size() >= spec_.requests) return;
    nbd_handle* handle = line.connection->handle();
    auto part = std::move(waiting_.front());
    waiting_.pop_front();
    if (part->op() == Op::kSync && nbd_library().can_flush(handle) != 1) {
      finish(*part, 0);
      continue;
    }
    if (line.asked.empty()) line.heard = Clock::now();
    line.asked.push_back(std::move(part));
    if (line.asked.back()->send(handle, spec_.no_hole)) continue;
    if (line.connection->alive()) throw nbd_error();
    lose(line, false);
    return;
  }
}

void NbdClient::wait() {
  std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}};
  std::vector<Line*> polled;
  auto timeout = std::chrono::milliseconds(-1);
  for (auto& line : lines_) {
    if (!line->connection) continue;
    // Sending may have found it gone: libnbd takes the request all the same, and has nothing left
    // that could be waited for.
    if (!line->connection->alive()) return;
    fds.push_back({line->connection->fd(), line->connection->events(), 0});
    polled.push_back(line.get());
    if (!line->asked.empty()) timeout = spec_.address.timeout;
  }
  // A line that could not be made while others work is tried again at once.
  if (!waiting_.empty() && polled.size() < lines_.size()) timeout = kFirstWait;
  if (poll(fds.data(), fds.size(), static_cast<int>(timeout.count())) < 0) {
    if (errno == EINTR) return;
    throw Error(errno, "poll");
  }
  eventfd_t count;
  if (fds[0].revents != 0) eventfd_read(wake_fd_, &count);
  for (size_t i = 0; i < polled.size(); i++) {
    Line& line = *polled[i];
    short revents = fds[i + 1].revents;
    if (revents != 0) {
      line.heard = Clock::now();
      line.connection->notify(revents);
    } else if (!line.asked.empty() && Clock::now() - line.heard > spec_.address.timeout) {
      lose(line, true);
    }
  }
}

// Takes the answers of a connection; of a lost one, asks again what was not answered.
void NbdClient::retire(Line& line) {
  if (!line.connection) return;
  bool alive = line.connection->alive();
  auto answered = [&](const std::unique_ptr<NbdPart>& part) {
    return part->completed && (alive || part->error == 0);
  };
  auto rest = std::stable_partition(line.asked.begin(), line.asked.end(),
                                    [&](const auto& part) { return !answered(part); });
  for (auto part = rest; part != line.asked.end(); part++) {
    if ((*part)->error == 0) line.lost = 0;
    finish(**part, (*part)->error);
  }
  line.asked.erase(rest, line.asked.end());
  if (!alive) lose(line, false);
}

// The connection must be closed before anything is asked again: until then it may still write into
// the memory.
void NbdClient::lose(Line& line, bool silent) {
  line.connection.reset();
  // A server that was silent is asked once more, on a new connection.
  line.lost += silent ? std::max(1u, spec_.retries) : 1;
  if (line.lost > spec_.retries)
    throw Error(silent ? ETIMEDOUT : ENOTCONN, "connection to the NBD server");
  for (auto part = line.asked.rbegin(); part != line.asked.rend(); part++) {
    waiting_.push_front(std::move(*part));
  }
  line.asked.clear();
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
    line->connection.reset();
    for (auto& part : std::exchange(line->asked, {})) finish(*part, why.errnum());
  }
  for (auto& part : std::exchange(waiting_, {})) finish(*part, why.errnum());
}

}  // namespace qb
