#include "source/nbd_connection.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace qb {

namespace {

// Messages of libnbd's while it negotiates: some 150 with everything that is asked for, and half a
// dozen for each reply that a server adds.
constexpr unsigned kMostSteps = 20000;

}  // namespace

// libnbd negotiates for as long as there is something to receive, within a single call: a server
// that never stops sending would keep the thread there, and memory growing with each context that
// it names. But libnbd reports each of its steps, and then finds a closed connection.
struct NbdConnection::Guard {
  std::shared_ptr<NbdCancel> cancel;
  Clock::time_point deadline;
  int fd = -1;
  unsigned steps = 0;

  static int on_step(void* data, const char*, const char*) noexcept {
    auto* guard = static_cast<Guard*>(data);
    bool stop =
        ++guard->steps > kMostSteps || guard->cancel->cancelled() || Clock::now() > guard->deadline;
    if (stop && guard->fd >= 0) shutdown(guard->fd, SHUT_RDWR);
    return 0;
  }
};

// Which contexts there are has to be asked before the export is entered.
struct NbdConnection::Negotiation {
  enum class Step { kList, kListing, kGoing };
  Step step = Step::kList;
  std::string prefix;
  std::vector<std::string> found;  // two at most: more than one is of no use
  bool done = false;               // what was asked for last
  int error = 0;

  static int on_context(void* data, const char* name) noexcept {
    auto* self = static_cast<Negotiation*>(data);
    if (self->found.size() < 2 && std::string_view(name).starts_with(self->prefix)) {
      self->found.emplace_back(name);
    }
    return 0;
  }
  static int on_done(void* data, int* error) noexcept {
    auto* self = static_cast<Negotiation*>(data);
    self->done = true;
    self->error = *error;
    return 1;
  }
};

NbdError nbd_error() {
  const NbdLibrary& nbd = nbd_library();
  int errnum = nbd.get_errno();
  const char* words = nbd.get_error();
  return NbdError(errnum != 0 ? errnum : EIO, words ? words : "NBD");
}

NbdConnection::NbdConnection(const NbdAddress& address, const std::vector<std::string>& contexts,
                             std::shared_ptr<NbdCancel> cancel)
    : nbd_(nbd_library()),
      handle_(nbd_.create()),
      timeout_(address.timeout),
      cancel_(std::move(cancel)),
      contexts_(contexts),
      guard_(std::make_unique<Guard>(Guard{cancel_, Clock::now() + address.timeout})),
      lost_(ENOTCONN, "connection to the NBD server") {
  if (!handle_) throw nbd_error();
  try {
    // Names keys and certificates of the user's own machine; the URI is the user's.
    nbd_.set_uri_allow_local_file(handle_, true);
    // Memory that an answer did not fill is never read.
    nbd_.set_pread_initialize(handle_, false);
    // The export's name and description, by which it is recognised.
    nbd_.set_full_info(handle_, true);
    auto open = std::find_if(contexts.begin(), contexts.end(),
                             [](const std::string& name) { return name.ends_with(':'); });
    if (open != contexts.end()) {
      negotiation_ = std::make_unique<Negotiation>();
      negotiation_->prefix = *open;
      if (nbd_.set_opt_mode(handle_, true) != 0) throw nbd_error();
      if (nbd_.add_meta_context(handle_, open->c_str()) != 0) throw nbd_error();
    }
    for (const std::string& context : contexts) {
      // The others would be listed, too.
      if (negotiation_) break;
      if (nbd_.add_meta_context(handle_, context.c_str()) != 0) throw nbd_error();
    }
    nbd_.set_debug_callback(handle_, {Guard::on_step, guard_.get(), nullptr});
    nbd_.set_debug(handle_, true);
    if (nbd_.aio_connect_uri(handle_, address.uri.c_str()) != 0) throw nbd_error();
  } catch (...) {
    nbd_.close(handle_);
    throw;
  }
}

NbdConnection::~NbdConnection() {
  if (alive() && !guard_) nbd_.aio_disconnect(handle_, 0);
  nbd_.close(handle_);
}

int NbdConnection::fd() const {
  return nbd_.aio_get_fd(handle_);
}

short NbdConnection::events() const {
  unsigned direction = nbd_.aio_get_direction(handle_);
  return static_cast<short>((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                            (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

// The direction is asked again before writing: reading may have changed what libnbd waits for.
bool NbdConnection::notify(short revents) {
  if (guard_) guard_->fd = fd();
  int waiting = 0;
  if ((revents & POLLIN) && ioctl(fd(), FIONREAD, &waiting) == 0) flow_.bytes += waiting;
  flow_.turns++;
  flow();
  int rc = 0;
  if ((revents & (POLLIN | POLLHUP | POLLERR)) &&
      (nbd_.aio_get_direction(handle_) & LIBNBD_AIO_DIRECTION_READ)) {
    rc = nbd_.aio_notify_read(handle_);
  }
  if (rc == 0 && (revents & (POLLOUT | POLLHUP | POLLERR)) &&
      (nbd_.aio_get_direction(handle_) & LIBNBD_AIO_DIRECTION_WRITE)) {
    rc = nbd_.aio_notify_write(handle_);
  }
  if (rc != 0) {
    lost_ = nbd_error();
    if (guard_ && guard_->steps > kMostSteps) {
      lost_ = Error(EPROTO, "the server never comes to the end of its negotiation");
    } else if (guard_ && Clock::now() > guard_->deadline) {
      lost_ = Error(ETIMEDOUT, "connection to the NBD server");
    }
  }
  bool there = rc == 0 && alive();
  if (there) ioctl(fd(), TIOCOUTQ, &unsent_);
  return there;
}

bool NbdConnection::alive() const {
  return nbd_.aio_is_dead(handle_) != 1 && nbd_.aio_is_closed(handle_) != 1;
}

// Lists the contexts, and then enters the export with all that are wanted. A quick server answers
// before a call returns, and then nothing more is to be waited for at the socket.
void NbdConnection::negotiate() {
  using Step = Negotiation::Step;
  Negotiation& now = *negotiation_;
  while (nbd_.aio_is_negotiating(handle_) == 1) {
    if (now.step == Step::kList) {
      now.step = Step::kListing;
      // A server that lists none has none.
      if (nbd_.aio_opt_list_meta_context(handle_, {Negotiation::on_context, &now, nullptr},
                                         {Negotiation::on_done, &now, nullptr}) != 0) {
        now.done = true;
      }
      continue;
    }
    if (!now.done) return;
    if (now.step == Step::kGoing) {
      throw NbdError(now.error != 0 ? now.error : ENOENT, "the server does not have this export");
    }
    for (std::string& context : contexts_) {
      if (context == now.prefix && now.found.size() == 1) context = now.found[0];
      if (context == now.prefix) continue;
      if (nbd_.add_meta_context(handle_, context.c_str()) != 0) throw nbd_error();
    }
    now.done = false;
    now.step = Step::kGoing;
    if (nbd_.aio_opt_go(handle_, {Negotiation::on_done, &now, nullptr}) != 0) throw nbd_error();
  }
}

bool NbdConnection::ready() {
  if (negotiation_) negotiate();
  if (nbd_.aio_is_ready(handle_) != 1) return false;
  if (guard_) {
    nbd_.set_debug(handle_, false);
    nbd_.clear_debug_callback(handle_);
    guard_.reset();
    negotiation_.reset();
  }
  return true;
}

NbdConnection::Clock::time_point NbdConnection::connect_deadline() const {
  return guard_ ? guard_->deadline : Clock::time_point::max();
}

Error NbdConnection::lost() const {
  return lost_;
}

// Bytes that left the socket's buffer since the last look have reached the other side.
const NbdFlow& NbdConnection::flow() {
  int unsent = 0;
  if (ioctl(fd(), TIOCOUTQ, &unsent) == 0) {
    flow_.bytes += std::max(0, unsent_ - unsent);
    unsent_ = unsent;
  }
  return flow_;
}

void NbdConnection::wait_for_socket(Clock::time_point deadline) {
  if (!alive()) throw lost_;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd fds[] = {{fd(), events(), 0}, {cancel_->fd(), POLLIN, 0}};
  int rc = poll(fds, 2, static_cast<int>(std::max<int64_t>(0, left.count())));
  if (rc < 0 && errno != EINTR) throw Error(errno, "poll");
  if (cancel_->cancelled()) throw Error(ECANCELED, "NBD connection");
  if (rc > 0 && fds[0].revents != 0) notify(fds[0].revents);
}

void NbdConnection::wait_ready() {
  while (!ready()) {
    if (Clock::now() >= guard_->deadline) throw Error(ETIMEDOUT, "answer of the NBD server");
    wait_for_socket(guard_->deadline);
  }
}

bool NbdConnection::wait_until(const std::function<bool()>& done, uint64_t most,
                               Clock::time_point soon) {
  NbdPace pace;
  pace.restart(Clock::now(), flow(), most);
  while (!done()) {
    if (Clock::now() >= soon) return false;
    switch (pace.judge(Clock::now(), flow(), timeout_, 1)) {
      case NbdPace::Verdict::kFine:
        break;
      case NbdPace::Verdict::kLate:
        throw Error(ETIMEDOUT, "answer of the NBD server");
      case NbdPace::Verdict::kEndless:
        throw Error(EPROTO, "the server's answer never ends");
    }
    wait_for_socket(std::min(soon, pace.due(timeout_)));
  }
  return true;
}

}  // namespace qb
