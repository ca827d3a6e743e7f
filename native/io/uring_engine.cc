#include "io/uring_engine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/error.h"

namespace qb {
namespace {

// Completions run in this thread, when it asks for them, instead of interrupting it: the kernel
// knows both flags since 6.0 and 6.1. A ring without them works the same.
constexpr unsigned kPreferredFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

// Not dropping completions (5.5) and a timeout that needs no request of its own (5.11).
constexpr unsigned kNeededFeatures = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;

io_uring make_ring(unsigned entries) {
  int rc = -EINVAL;
  for (const unsigned flags : {kPreferredFlags, 0U}) {
    io_uring ring{};
    io_uring_params params{};
    params.flags = flags;
    rc = io_uring_queue_init_params(entries, &ring, &params);
    if (rc == 0) {
      if ((params.features & kNeededFeatures) == kNeededFeatures) return ring;
      io_uring_queue_exit(&ring);
      throw Error(ENOSYS, "io_uring of this kernel");
    }
    if (rc != -EINVAL) break;
  }
  throw Error(-rc, "io_uring_setup");
}

// Transfers of one buffer need no iovec to be copied in. The length has 32 bits there.
bool is_plain(const Request& request) {
  return request.iov.size() == 1 && request.iov[0].iov_len <= std::numeric_limits<uint32_t>::max();
}

void prepare(io_uring_sqe* sqe, const Request& request) {
  const iovec* iov = request.iov.data();
  const auto count = static_cast<unsigned>(request.iov.size());
  switch (request.op) {
    case Op::kRead:
      if (is_plain(request)) {
        io_uring_prep_read(sqe, request.fd, iov->iov_base, static_cast<unsigned>(iov->iov_len),
                           request.offset);
      } else {
        io_uring_prep_readv(sqe, request.fd, iov, count, request.offset);
      }
      break;
    case Op::kWrite:
      if (is_plain(request)) {
        io_uring_prep_write(sqe, request.fd, iov->iov_base, static_cast<unsigned>(iov->iov_len),
                            request.offset);
      } else {
        io_uring_prep_writev(sqe, request.fd, iov, count, request.offset);
      }
      break;
    case Op::kSync:
      io_uring_prep_fsync(sqe, request.fd, IORING_FSYNC_DATASYNC);
      break;
    case Op::kZero:
      // The kernel refuses operations that it does not know.
      io_uring_prep_rw(IORING_OP_LAST, sqe, -1, nullptr, 0, 0);
      break;
  }
}

}  // namespace

// One entry more than asked for: the poll on the eventfd.
UringEngine::UringEngine(unsigned depth) : ring_(make_ring(depth + 1)) {
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) {
    const int errnum = errno;
    io_uring_queue_exit(&ring_);
    throw Error(errnum, "eventfd");
  }
  arm_wake();
}

// A ring that fails here would leave the kernel writing into memory about to be freed: better that
// the exception ends the process.
// NOLINTNEXTLINE(bugprone-exception-escape)
UringEngine::~UringEngine() {
  std::vector<Request*> done;
  while (in_flight_ > 0) {
    enter(true, std::nullopt);
    collect(done);
  }
  io_uring_queue_exit(&ring_);
  close(wake_fd_);
}

io_uring_sqe* UringEngine::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) throw Error(EBUSY, "more requests than the depth of the ring");
  return sqe;
}

// A poll rather than a read: it leaves no memory of ours with the kernel when the ring is closed.
void UringEngine::arm_wake() {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_add(sqe, wake_fd_, POLLIN);
  io_uring_sqe_set_data(sqe, nullptr);
}

void UringEngine::submit(Request* request) {
  io_uring_sqe* sqe = next_sqe();
  prepare(sqe, *request);
  io_uring_sqe_set_data(sqe, request);
  ++in_flight_;
}

void UringEngine::reap(std::vector<Request*>& done, bool wait,
                       std::optional<Clock::time_point> deadline) {
  const size_t before = done.size();
  bool block = wait && !woken_;
  do {
    enter(block, deadline);
    collect(done);
    block = wait && !woken_ && done.size() == before && !(deadline && *deadline <= Clock::now());
  } while (block);
  if (wait) woken_ = false;
}

void UringEngine::wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the engine is being woken already.
  [[maybe_unused]] const ssize_t rc = write(wake_fd_, &one, sizeof one);
}

// Submits queued requests and, when `block`, waits for one completion. Returning early is fine,
// the callers look themselves: a signal (EINTR), the deadline (ETIME), or a kernel that is short of
// memory (EAGAIN) or wants completions taken first (EBUSY) and keeps the rest queued.
void UringEngine::enter(bool block, std::optional<Clock::time_point> deadline) {
  int rc = 0;
  if (!block) {
    rc = io_uring_submit_and_get_events(&ring_);
  } else if (!deadline) {
    rc = io_uring_submit_and_wait(&ring_, 1);
  } else {
    using std::chrono::nanoseconds;
    const auto left = std::max<int64_t>(nanoseconds(*deadline - Clock::now()).count(), 0);
    __kernel_timespec timeout{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    io_uring_cqe* first = nullptr;
    rc = io_uring_submit_and_wait_timeout(&ring_, &first, 1, &timeout, nullptr);
  }
  if (rc < 0 && rc != -EINTR && rc != -ETIME && rc != -EAGAIN && rc != -EBUSY) {
    throw Error(-rc, "io_uring_enter");
  }
}

void UringEngine::collect(std::vector<Request*>& done) {
  unsigned head = 0;
  unsigned seen = 0;
  bool rearm = false;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    ++seen;
    auto* request = static_cast<Request*>(io_uring_cqe_get_data(cqe));
    if (request == nullptr) {
      rearm = true;
      continue;
    }
    request->result = cqe->res;
    done.push_back(request);
    --in_flight_;
  }
  io_uring_cq_advance(&ring_, seen);
  if (rearm) {
    // Emptied before the next poll, so that a wake() in between is seen by that one.
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t rc = read(wake_fd_, &count, sizeof count);
    woken_ = true;
    arm_wake();
  }
}

}  // namespace qb
