#include "source/nbd_reads.h"

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

// A transfer being read in parts.
struct Reading {
  Transfer* transfer;
  size_t parts_left;
};

// What one request reads of a transfer: no more than the server takes at a time.
struct NbdReads::Part {
  std::shared_ptr<Reading> reading;
  uint8_t* into;
  uint64_t offset;  // in the export, bytes
  uint64_t length;
  bool completed = false;
  int error = 0;
};

// One connection and what it was asked.
struct NbdReads::Line {
  std::unique_ptr<NbdConnection> connection;
  std::vector<std::unique_ptr<Part>> asked;
  unsigned lost = 0;        // times since it last brought something
  Clock::time_point heard;  // when it last answered, or was first asked
};

NbdReads::NbdReads(const NbdReadSpec& spec, std::function<void()> finished)
    : spec_(spec),
      finished_(std::move(finished)),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  check_errno(wake_fd_ >= 0, "eventfd");
  for (unsigned i = 0; i < spec_.connections; i++) lines_.push_back(std::make_unique<Line>());
  thread_ = std::thread([this] { run(); });
}

NbdReads::~NbdReads() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  eventfd_write(wake_fd_, 1);
  thread_.join();
  close(wake_fd_);
}

void NbdReads::submit(Transfer* transfer) {
  transfer->length = transfer->iov[0].iov_len;
  transfer->done = 0;
  transfer->error = 0;
  in_flight_++;
  {
    std::lock_guard lock(mutex_);
    submitted_.push_back(transfer);
  }
  eventfd_write(wake_fd_, 1);
}

void NbdReads::collect(std::vector<Transfer*>& done) {
  std::lock_guard lock(mutex_);
  in_flight_ -= done_.size();
  done.insert(done.end(), done_.begin(), done_.end());
  done_.clear();
}

std::string NbdReads::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

// Runs inside libnbd, on the thread.
int NbdReads::on_done(void* data, int* error) noexcept {
  auto* part = static_cast<Part*>(data);
  part->completed = true;
  part->error = *error;
  return 1;
}

void NbdReads::run() noexcept {
  pthread_setname_np(pthread_self(), "qcow2-nbd");
  while (take_submitted()) {
    try {
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
bool NbdReads::take_submitted() {
  std::vector<Transfer*> transfers;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    transfers.swap(submitted_);
  }
  for (Transfer* transfer : transfers) {
    auto reading = std::make_shared<Reading>(Reading{transfer, 0});
    for (uint64_t at = 0; at < transfer->length; at += spec_.block_max) {
      auto part = std::make_unique<Part>();
      part->reading = reading;
      part->into = static_cast<uint8_t*>(transfer->iov[0].iov_base) + at;
      part->offset = transfer->offset + at;
      part->length = std::min(spec_.block_max, transfer->length - at);
      reading->parts_left++;
      waiting_.push_back(std::move(part));
    }
  }
  return true;
}

// Makes the connections that are missing while there is something to ask. Throws Error when one
// can't be made however often it is tried.
void NbdReads::mend_lines() {
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
bool NbdReads::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stop_.wait_for(lock, time, [this] { return stopping_; });
}

void NbdReads::hand_out() {
  while (!waiting_.empty()) {
    auto least = std::min_element(lines_.begin(), lines_.end(), [](const auto& a, const auto& b) {
      return a->asked.size() < b->asked.size();
    });
    Line& line = **least;
    if (!line.connection || line.asked.size() >= spec_.requests) return;
    if (line.asked.empty()) line.heard = Clock::now();
    Part& part = *waiting_.front();
    part.completed = false;
    nbd_completion_callback completion{on_done, &part, nullptr};
    line.asked.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    if (nbd_library().aio_pread(line.connection->handle(), part.into, part.length, part.offset,
                                completion, 0) >= 0) {
      continue;
    }
    if (line.connection->alive()) throw nbd_error();
    lose(line, false);
    return;
  }
}

void NbdReads::wait() {
  std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}};
  std::vector<Line*> polled;
  auto timeout = std::chrono::milliseconds(-1);
  for (auto& line : lines_) {
    if (!line->connection) continue;
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
void NbdReads::retire(Line& line) {
  if (!line.connection) return;
  bool alive = line.connection->alive();
  auto answered = [&](const std::unique_ptr<Part>& part) {
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
void NbdReads::lose(Line& line, bool silent) {
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

void NbdReads::finish(Part& part, int error) {
  Reading& reading = *part.reading;
  Transfer* transfer = reading.transfer;
  if (error != 0) {
    transfer->error = error;
  } else {
    transfer->done += part.length;
  }
  if (--reading.parts_left > 0) return;
  {
    std::lock_guard lock(mutex_);
    done_.push_back(transfer);
  }
  finished_();
}

// The export can't be reached: everything asked fails with that.
void NbdReads::give_up(const Error& why) {
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
