// A file that goes away with its object.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace qb::test {

// Made empty in $TMPDIR, else in the current directory: the file system under test is the one the
// tests are run on.
class TempFile {
 public:
  TempFile() {
    const char* dir = getenv("TMPDIR");
    path_ = std::string(dir != nullptr && *dir != '\0' ? dir : ".") + "/qb-test-XXXXXX";
    fd_ = mkostemp(path_.data(), O_CLOEXEC);
    check_errno(fd_ >= 0, "mkostemp");
  }
  ~TempFile() {
    close(fd_);
    unlink(path_.c_str());
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

  // Past the engines.
  void write(uint64_t offset, const std::vector<uint8_t>& bytes) const {
    const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    check_errno(n == static_cast<ssize_t>(bytes.size()), "pwrite");
  }
  std::vector<uint8_t> read(uint64_t offset, size_t length) const {
    std::vector<uint8_t> bytes(length);
    const ssize_t n = pread(fd_, bytes.data(), length, static_cast<off_t>(offset));
    check_errno(n >= 0, "pread");
    bytes.resize(static_cast<size_t>(n));
    return bytes;
  }
  void truncate(uint64_t length) const {
    check_errno(ftruncate(fd_, static_cast<off_t>(length)) == 0, "ftruncate");
  }

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace qb::test
