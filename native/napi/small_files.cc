#include "napi/small_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "napi/errors.h"
#include "napi/promise_worker.h"

namespace qb {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

// The contents of files, one after the other.
struct Contents {
  std::vector<char> bytes;
  // Of each file; -1: it was not read.
  std::vector<double> lengths;
};

// Appends a regular file of at most `room` bytes; false on any trouble. It is found first and
// opened then, as opening a FIFO waits and opening a device may do anything.
bool append(int directory, const char* name, size_t room, std::vector<char>& bytes) {
  Descriptor found(openat(directory, name, O_PATH | O_CLOEXEC));
  struct stat status {};
  if (found < 0 || fstat(found, &status) != 0 || !S_ISREG(status.st_mode)) return false;
  std::string again = "/proc/self/fd/" + std::to_string(found);
  Descriptor file(open(again.c_str(), O_RDONLY | O_CLOEXEC));
  auto size = static_cast<size_t>(status.st_size);
  if (file < 0 || size > room) return false;
  size_t at = bytes.size();
  bytes.resize(at + size);
  for (size_t done = 0; done < size;) {
    ssize_t count = read(file, bytes.data() + at + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      bytes.resize(at);
      return false;
    }
    done += static_cast<size_t>(count);
  }
  return true;
}

Contents read_all(const std::string& path, const std::string& names, size_t most) {
  Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check_errno(directory >= 0, "open a directory");
  Contents contents;
  for (size_t at = 0; at < names.size();) {
    const char* name = names.c_str() + at;
    size_t before = contents.bytes.size();
    bool is_read = append(directory, name, most - before, contents.bytes);
    contents.lengths.push_back(is_read ? static_cast<double>(contents.bytes.size() - before) : -1);
    at = names.find('\0', at) + 1;
  }
  return contents;
}

std::string text_of(const Napi::Value& value) {
  auto bytes = value.As<Napi::Buffer<char>>();
  return {bytes.Data(), bytes.Length()};
}

// On the thread pool: a network file system takes its time for each.
Napi::Value read_files(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    std::string path = text_of(info[0]);
    std::string names = text_of(info[1]);
    if (!names.empty() && names.back() != '\0') throw Error(EINVAL, "names");
    auto most = static_cast<size_t>(info[2].As<Napi::Number>().DoubleValue());
    auto contents = std::make_shared<Contents>();
    return PromiseWorker::run(
        info.Env(), [=] { *contents = read_all(path, names, most); },
        [=](Napi::Env env) -> Napi::Value {
          auto result = Napi::Object::New(env);
          const auto& [bytes, lengths] = *contents;
          result.Set("bytes", Napi::Buffer<char>::Copy(env, bytes.data(), bytes.size()));
          auto array = Napi::Float64Array::New(env, lengths.size());
          std::copy(lengths.begin(), lengths.end(), array.Data());
          result.Set("lengths", array);
          return result;
        });
  });
}

}  // namespace

void export_small_files(Napi::Env env, Napi::Object exports) {
  export_function<read_files>(env, exports, "readFiles");
}

}  // namespace qb
