// The seam between I/O requests and the kernel interface: io_uring, or
// threads with preadv/pwritev. Knows no qcow2. Tests put their own engines here (recording,
// failing, stopping).
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace qb {

// kZero, a range that is to read as zero, is for stores that know such a request (io/remote.h); the
// kernel has none for files.
enum class Op : uint8_t { kRead, kWrite, kSync, kZero };

// One transfer. Owned by the submitter, who must keep it, `iov` and the memory alive, and not touch
// them, from submit() until reap() hands the request back: until then the kernel may use them.
struct Request {
  Op op = Op::kRead;
  int fd = -1;
  uint64_t offset = 0;          // bytes
  std::vector<iovec> iov = {};  // empty for kSync; at most IOV_MAX
  int64_t result = 0;           // set by the engine: bytes transferred, or -errno
  void* tag = nullptr;          // the submitter's
};

// Thread-safety: made, used and destroyed by one thread; only wake() may be called from others.
class Engine {
 public:
  using Clock = std::chrono::steady_clock;
  virtual ~Engine() = default;  // waits until the kernel is done with every request

  // The name for reports: "io_uring" or "threads".
  virtual const char* name() const = 0;
  // Takes a request. Never blocks on I/O; may defer handing it to the kernel until reap().
  // REQUIRES: fewer than the engine's depth in flight.
  virtual void submit(Request* request) = 0;
  // Appends finished requests to `done`. When `wait`, returns only once there is at least one, or
  // wake() was called, or `deadline` has passed; a wake() before the call counts.
  virtual void reap(std::vector<Request*>& done, bool wait,
                    std::optional<Clock::time_point> deadline = std::nullopt) = 0;
  // Makes the current or next waiting reap() return. Thread-safe, never blocks.
  virtual void wake() = 0;
};

}  // namespace qb
