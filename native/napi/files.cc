#include "napi/files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/file_extents.h"
#include "napi/errors.h"
#include "napi/promise_worker.h"

namespace qb {

namespace {

// Without the handlers of exit(3), which join threads that may hang in a system call.
void exit_now(const Napi::CallbackInfo& info) {
  _exit(info[0].As<Napi::Number>().Int32Value());
}

// A descriptor of our own for the same open file, for work on the thread pool: the caller may close
// its own before that is done, and the number could then be another file. Thread-safe.
class OwnDescriptor {
 public:
  explicit OwnDescriptor(int fd)
      : fd_(fcntl(fd, F_DUPFD_CLOEXEC, 0)), errnum_(fd_ < 0 ? errno : 0) {}
  ~OwnDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  OwnDescriptor(const OwnDescriptor&) = delete;
  OwnDescriptor& operator=(const OwnDescriptor&) = delete;

  // Throws Error if there is none: on the pool, so that the promise is rejected.
  int checked() const {
    if (fd_ < 0) throw Error(errnum_, "duplicate a descriptor");
    return fd_;
  }
  // -1 if there is none: the operation is optional.
  operator int() const { return fd_; }

 private:
  int fd_;
  int errnum_;
};

std::shared_ptr<OwnDescriptor> own_descriptor(const Napi::Value& fd) {
  return std::make_shared<OwnDescriptor>(fd.As<Napi::Number>().Int32Value());
}

// On the thread pool: a network file system may take its time.
Napi::Value extents(const Napi::CallbackInfo& info) {
  auto fd = own_descriptor(info[0]);
  auto start = static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue());
  auto end = static_cast<uint64_t>(info[2].As<Napi::Number>().DoubleValue());
  auto max = static_cast<size_t>(info[3].As<Napi::Number>().DoubleValue());
  auto runs = std::make_shared<std::vector<FileRun>>();
  return PromiseWorker::run(
      info.Env(), [=] { *runs = file_extents(fd->checked(), start, end, max); },
      [=](Napi::Env env) -> Napi::Value {
        auto triples = Napi::Float64Array::New(env, runs->size() * 3);
        double* at = triples.Data();
        for (const FileRun& run : *runs) {
          *at++ = static_cast<double>(run.start);
          *at++ = static_cast<double>(run.length);
          *at++ = run.data ? 1 : 0;
        }
        return triples;
      });
}

// Seeking to the end gives the size of files and of block devices alike.
Napi::Value device_size(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    off_t size = lseek(info[0].As<Napi::Number>().Int32Value(), 0, SEEK_END);
    check_errno(size >= 0, "seek to the end");
    return Napi::Number::New(info.Env(), static_cast<double>(size));
  });
}

// On the thread pool: the range may be large.
Napi::Value punch_file(const Napi::CallbackInfo& info) {
  auto fd = own_descriptor(info[0]);
  auto pairs = info[1].As<Napi::Float64Array>();
  std::vector<double> areas(pairs.Data(), pairs.Data() + pairs.ElementLength());
  auto punched = std::make_shared<size_t>(0);
  return PromiseWorker::run(
      info.Env(),
      [=] {
        for (size_t i = 0; i + 1 < areas.size(); i += 2) {
          int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
          auto start = static_cast<off_t>(areas[i]), length = static_cast<off_t>(areas[i + 1]);
          if (fallocate(*fd, mode, start, length) != 0) return;
          ++*punched;
        }
      },
      [=](Napi::Env env) { return Napi::Number::New(env, static_cast<double>(*punched)); });
}

// On the thread pool: each is a transaction of the file system.
Napi::Value clone_ranges(const Napi::CallbackInfo& info) {
  auto from = own_descriptor(info[0]);
  auto to = own_descriptor(info[1]);
  auto triples = info[2].As<Napi::Float64Array>();
  std::vector<double> ranges(triples.Data(), triples.Data() + triples.ElementLength());
  auto cloned = std::make_shared<size_t>(0);
  return PromiseWorker::run(
      info.Env(),
      [=] {
        for (size_t i = 0; i + 2 < ranges.size(); i += 3) {
          struct file_clone_range range {};
          range.src_fd = *from;
          range.src_offset = static_cast<uint64_t>(ranges[i]);
          range.dest_offset = static_cast<uint64_t>(ranges[i + 1]);
          range.src_length = static_cast<uint64_t>(ranges[i + 2]);
          // On any failure the range can be copied instead.
          if (ioctl(*to, FICLONERANGE, &range) != 0) return;
          ++*cloned;
        }
      },
      [=](Napi::Env env) { return Napi::Number::New(env, static_cast<double>(*cloned)); });
}

Napi::Value link_file(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    std::string from = "/proc/self/fd/" + std::to_string(info[0].As<Napi::Number>().Int32Value());
    if (!info[1].IsBuffer()) throw Error(EINVAL, "link");
    auto bytes = info[1].As<Napi::Buffer<char>>();
    std::string path(bytes.Data(), bytes.Length());
    int rc = linkat(AT_FDCWD, from.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW);
    check_errno(rc == 0, "link");
    return info.Env().Undefined();
  });
}

// Open file description locks: they belong to the open file, not to the process, and end with it.
struct flock byte_lock(int64_t byte, int16_t type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// Some network file systems have none.
bool no_locks(int error) {
  return error == EINVAL || error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP;
}

// One byte for this opening of the file, exclusively or shared, or not any more. No waiting.
Napi::Value lock_byte(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    int fd = info[0].As<Napi::Number>().Int32Value();
    int64_t byte = info[1].As<Napi::Number>().Int64Value();
    std::string kind = info[2].As<Napi::String>();
    int type = kind == "exclusive" ? F_WRLCK : kind == "shared" ? F_RDLCK : F_UNLCK;
    struct flock lock = byte_lock(byte, static_cast<int16_t>(type));
    bool locked = fcntl(fd, F_OFD_SETLK, &lock) == 0;
    if (!locked) check_errno(errno == EAGAIN || errno == EACCES, "lock");
    return Napi::Boolean::New(info.Env(), locked);
  });
}

Napi::Value lock_file(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    constexpr double kFree = -1;
    int fd = info[0].As<Napi::Number>().Int32Value();
    auto locks = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < locks.Length(); i++) {
      struct flock lock = byte_lock(locks.Get(i).As<Napi::Number>().Int64Value(), F_RDLCK);
      if (fcntl(fd, F_OFD_SETLK, &lock) == 0) continue;
      // A program other than QEMU has the byte locked exclusively.
      if (errno == EAGAIN || errno == EACCES) return locks.Get(i);
      check_errno(no_locks(errno), "lock");
      return Napi::Number::New(info.Env(), kFree);
    }
    auto tests = info[2].As<Napi::Array>();
    for (uint32_t i = 0; i < tests.Length(); i++) {
      struct flock lock = byte_lock(tests.Get(i).As<Napi::Number>().Int64Value(), F_WRLCK);
      check_errno(fcntl(fd, F_OFD_GETLK, &lock) == 0, "test a lock");
      if (lock.l_type != F_UNLCK) return tests.Get(i);
    }
    return Napi::Number::New(info.Env(), kFree);
  });
}

}  // namespace

void export_files(Napi::Env env, Napi::Object exports) {
  export_function<extents>(env, exports, "fileExtents");
  export_function<device_size>(env, exports, "deviceSize");
  export_function<clone_ranges>(env, exports, "cloneRanges");
  export_function<punch_file>(env, exports, "punchFile");
  export_function<lock_file>(env, exports, "lockFile");
  export_function<lock_byte>(env, exports, "lockByte");
  export_function<exit_now>(env, exports, "exitNow");
  export_function<link_file>(env, exports, "linkFile");
}

}  // namespace qb
