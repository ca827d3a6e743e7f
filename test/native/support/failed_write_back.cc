#include "support/failed_write_back.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace qb::test {

namespace {

std::atomic<unsigned> fails_in = 0;
std::atomic<int> fails_with = 0;

}  // namespace

FailedWriteBack::FailedWriteBack(unsigned nth, int errnum) {
  fails_with = errnum;
  fails_in = nth;
}

FailedWriteBack::~FailedWriteBack() {
  fails_in = 0;
}

bool FailedWriteBack::came() {
  return fails_in == 0;
}

}  // namespace qb::test

// Found by the linker before the C library's.
extern "C" int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags) {
  using namespace qb::test;
  if (fails_in > 0 && --fails_in == 0) {
    errno = fails_with;
    return -1;
  }
  return static_cast<int>(syscall(SYS_sync_file_range, fd, from, length, flags));
}
