#include "napi/names.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "napi/errors.h"

namespace qb {

namespace {

std::string path_of(const Napi::Value& value) {
  if (!value.IsBuffer()) throw Error(EINVAL, "path");
  auto bytes = value.As<Napi::Buffer<char>>();
  return {bytes.Data(), bytes.Length()};
}

// By the open link itself: its name may lead to another one by now.
Napi::Value read_link(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    char target[PATH_MAX];
    ssize_t length = readlinkat(info[0].As<Napi::Number>().Int32Value(), "", target, sizeof target);
    check_errno(length >= 0, "read a symbolic link");
    return Napi::Buffer<char>::Copy(info.Env(), target, static_cast<size_t>(length));
  });
}

Napi::Value exchange_names(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    std::string a = path_of(info[0]);
    std::string b = path_of(info[1]);
    // Through syscall(): musl has no wrapper of it.
    long rc = syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
    check_errno(rc == 0, "exchange two names");
    return info.Env().Undefined();
  });
}

Napi::Value loop_backing(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    struct loop_info64 status {};
    int fd = info[0].As<Napi::Number>().Int32Value();
    // ENXIO: a loop device without a file. Otherwise: no loop device.
    if (ioctl(fd, LOOP_GET_STATUS64, &status) != 0) return info.Env().Undefined();
    auto backing = Napi::Object::New(info.Env());
    auto big = [&](uint64_t value) { return Napi::BigInt::New(info.Env(), value); };
    backing.Set("dev", big(status.lo_device));
    backing.Set("ino", big(status.lo_inode));
    backing.Set("rdev", big(status.lo_rdevice));
    backing.Set("offset", big(status.lo_offset));
    backing.Set("sizeLimit", big(status.lo_sizelimit));
    return backing;
  });
}

}  // namespace

void export_names(Napi::Env env, Napi::Object exports) {
  export_function<read_link>(env, exports, "readLink");
  export_function<exchange_names>(env, exports, "exchangeNames");
  export_function<loop_backing>(env, exports, "loopBacking");
}

}  // namespace qb
