#include "napi/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/file_extents.h"
#include "napi/errors.h"

namespace qb {

namespace {

// On the thread pool: a network file system may take its time.
class ExtentsWorker : public Napi::AsyncWorker {
 public:
  ExtentsWorker(Napi::Env env, int fd, uint64_t start, uint64_t end, size_t max)
      : AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        fd_(fd),
        start_(start),
        end_(end),
        max_(max) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      runs_ = file_extents(fd_, start_, end_, max_);
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void OnOK() override {
    if (failure_) {
      deferred_.Reject(to_js(Env(), failure_).Value());
      return;
    }
    auto triples = Napi::Float64Array::New(Env(), runs_.size() * 3);
    double* at = triples.Data();
    for (const FileRun& run : runs_) {
      *at++ = static_cast<double>(run.start);
      *at++ = static_cast<double>(run.length);
      *at++ = run.data ? 1 : 0;
    }
    deferred_.Resolve(triples);
  }

 private:
  Napi::Promise::Deferred deferred_;
  int fd_;
  uint64_t start_, end_;
  size_t max_;
  std::vector<FileRun> runs_;
  std::exception_ptr failure_;
};

Napi::Value extents(const Napi::CallbackInfo& info) {
  auto* worker = new ExtentsWorker(info.Env(), info[0].As<Napi::Number>().Int32Value(),
                                   static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue()),
                                   static_cast<uint64_t>(info[2].As<Napi::Number>().DoubleValue()),
                                   static_cast<size_t>(info[3].As<Napi::Number>().DoubleValue()));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

// Seeking to the end tells the size of files and of block devices alike.
Napi::Value device_size(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    off_t size = lseek(info[0].As<Napi::Number>().Int32Value(), 0, SEEK_END);
    check_errno(size >= 0, "seek to the end");
    return Napi::Number::New(info.Env(), static_cast<double>(size));
  });
}

Napi::Value link_file(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    std::string from = "/proc/self/fd/" + std::to_string(info[0].As<Napi::Number>().Int32Value());
    std::string path = info[1].As<Napi::String>().Utf8Value();
    int rc = linkat(AT_FDCWD, from.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW);
    check_errno(rc == 0, "link");
    return info.Env().Undefined();
  });
}

}  // namespace

void export_files(Napi::Env env, Napi::Object exports) {
  exports.Set("fileExtents", Napi::Function::New(env, extents, "fileExtents"));
  exports.Set("deviceSize", Napi::Function::New(env, device_size, "deviceSize"));
  exports.Set("linkFile", Napi::Function::New(env, link_file, "linkFile"));
}

}  // namespace qb
