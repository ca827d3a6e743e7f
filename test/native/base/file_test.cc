#include "base/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <utility>

#include "base/buffer.h"
#include "base/error.h"
#include "support/bytes.h"
#include "support/failed_write_back.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

namespace {

uint64_t length_of(const TempFile& file) {
  struct stat info;
  REQUIRE(fstat(file.fd(), &info) == 0);
  return static_cast<uint64_t>(info.st_size);
}

int errnum_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.errnum();
  }
  return 0;
}

}  // namespace

TEST_CASE("File: an own description; the caller's stays as it was") {
  const TempFile temp;
  int flags = fcntl(temp.fd(), F_GETFL);
  const File file(temp.fd(), true, Direct::kAuto, kPage);
  CHECK(file.fd() != temp.fd());
  CHECK(fcntl(temp.fd(), F_GETFL) == flags);
  CHECK((fcntl(file.fd(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(((fcntl(file.fd(), F_GETFL) & O_DIRECT) != 0) == file.direct());
  CHECK(!file.is_device());
}

TEST_CASE("File: opened for reading it cannot be written") {
  const TempFile temp;
  const File file(temp.fd(), false, Direct::kOff, kPage);
  CHECK(pwrite(file.fd(), "x", 1, 0) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("File: buffered asks for no alignment") {
  const TempFile temp;
  const File file(temp.fd(), true, Direct::kOff, kPage);
  CHECK(!file.direct());
  CHECK(file.alignment() == 1);
  CHECK((fcntl(file.fd(), F_GETFL) & O_DIRECT) == 0);
  CHECK(file.is_aligned(1, 3, reinterpret_cast<void*>(5)));
}

TEST_CASE("File: the alignment it tells is what direct transfers take") {
  const TempFile temp;
  const File file(temp.fd(), true, Direct::kAuto, kPage);
  if (file.direct()) {
    unsigned alignment = file.alignment();
    CHECK(alignment >= 512);
    CHECK(alignment <= kPage);
    CHECK(file.is_aligned(alignment, 3 * alignment, reinterpret_cast<void*>(2 * kPage)));
    CHECK(!file.is_aligned(alignment / 2, alignment, reinterpret_cast<void*>(kPage)));
    CHECK(!file.is_aligned(0, alignment + 1, reinterpret_cast<void*>(kPage)));
    CHECK(!file.is_aligned(0, alignment, reinterpret_cast<void*>(alignment / 2)));
  }
  // Either way the smallest piece at the smallest offset goes through.
  BufferPool pool;
  BufferRef memory = pool.get(2 * kPage);
  uint8_t* piece = memory->data() + file.alignment();
  std::fill_n(piece, file.alignment(), uint8_t{7});
  CHECK(pwrite(file.fd(), piece, file.alignment(), file.alignment()) == file.alignment());
  CHECK(temp.read(file.alignment(), file.alignment()) == Bytes(file.alignment(), 7));
}

TEST_CASE("File: pieces smaller than the file takes make it buffered, or are refused") {
  const TempFile temp;
  const File file(temp.fd(), true, Direct::kAuto, 100);
  CHECK(!file.direct());
  CHECK((fcntl(file.fd(), F_GETFL) & O_DIRECT) == 0);
  CHECK(errnum_of([&] { File(temp.fd(), true, Direct::kOn, 100); }) == EINVAL);
}

TEST_CASE("File: what cannot be opened says so") {
  CHECK(errnum_of([] { File(-1, false, Direct::kAuto, kPage); }) == EBADF);
}

TEST_CASE("File: moves with its descriptor") {
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  int fd = file.fd();
  {
    const File moved(std::move(file));
    CHECK(moved.fd() == fd);
  }
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("File: reserve() sets a length ahead, set_length() the exact one") {
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  file.reserve(10000);
  uint64_t ahead = length_of(temp);
  CHECK(ahead > 1 << 20);
  file.reserve(ahead - 1);
  CHECK(length_of(temp) == ahead);
  file.reserve(ahead + 1);
  CHECK(length_of(temp) > ahead + 1);
  file.set_length(1000);
  CHECK(length_of(temp) == 1000);
  // What was cut off is not taken for reserved.
  file.reserve(2000);
  CHECK(length_of(temp) >= 2000);
}

TEST_CASE("File: reserve() asks for less where the file system does not give so much") {
  // 16 TiB less a page is as long as files on ext4 get, 8 EiB less one byte is for any.
  constexpr uint64_t kLongest = INT64_MAX;
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  CHECK(errnum_of([&] { file.reserve(kLongest + 1); }) != 0);
  uint64_t longest = 0;
  for (uint64_t bit = 1ull << 62; bit > 0; bit >>= 1) {
    if (ftruncate(temp.fd(), static_cast<off_t>(longest + bit)) == 0) longest += bit;
  }
  temp.truncate(0);
  file.reserve(longest - 5);
  CHECK(length_of(temp) >= longest - 5);
}

TEST_CASE("File: reserve() asks for less where the user's limit does not give so much") {
  // What Node does for the whole process: the error instead of the signal.
  auto before = signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  rlimit small = {10 << 20, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  int below = errnum_of([&] { file.reserve(9 << 20); });
  uint64_t length = length_of(temp);
  int beyond = errnum_of([&] { file.reserve(11 << 20); });
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, before);
  CHECK(below == 0);
  CHECK(length == 9 << 20);
  CHECK(beyond == EFBIG);
}

TEST_CASE("File: set_length() and reserve() tell of a failure") {
  const TempFile temp;
  File file(temp.fd(), false, Direct::kOff, kPage);
  CHECK(errnum_of([&] { file.set_length(1); }) == EINVAL);
  CHECK(errnum_of([&] { file.reserve(1); }) == EINVAL);
}

TEST_CASE("File: written_up_to() reports what could not be written back") {
  constexpr uint64_t kWindow = 32 << 20, kWindows = 3;
  // One call at the end of the first window, two at those of the others. The sixth is one too many.
  for (unsigned nth = 1; nth <= 6; nth++) {
    for (int errnum : {EIO, ENOSPC, EDQUOT, ENOSYS, EINVAL}) {
      CAPTURE(nth);
      CAPTURE(errnum);
      const TempFile temp;
      File file(temp.fd(), true, Direct::kOff, kPage);
      const FailedWriteBack failed(nth, errnum);
      int reported = errnum_of([&] {
        for (uint64_t i = 1; i <= kWindows; i++) file.written_up_to(i * kWindow);
      });
      CHECK(FailedWriteBack::came() == (nth < 6));
      // The last two say that the file has no such thing, not that it lost anything.
      bool counts = nth < 6 && errnum != ENOSYS && errnum != EINVAL;
      CHECK(reported == (counts ? errnum : 0));
    }
  }
}

TEST_CASE("File: written_up_to() empties the page cache behind it and harms nothing") {
  constexpr size_t kPiece = 4 << 20;
  constexpr size_t kPieces = 40;
  const TempFile temp;
  File file(temp.fd(), true, Direct::kOff, kPage);
  for (size_t i = 0; i < kPieces; i++) {
    temp.write(i * kPiece, Bytes(kPiece, static_cast<uint8_t>(i + 1)));
    file.written_up_to((i + 1) * kPiece);
  }
  void* map = mmap(nullptr, kPieces * kPiece, PROT_READ, MAP_SHARED, temp.fd(), 0);
  REQUIRE(map != MAP_FAILED);
  std::vector<unsigned char> resident(kPieces * kPiece / kPage);
  REQUIRE(mincore(map, kPieces * kPiece, resident.data()) == 0);
  munmap(map, kPieces * kPiece);
  struct statfs info;
  REQUIRE(fstatfs(temp.fd(), &info) == 0);
  // A file that lives in the page cache cannot leave it.
  if (info.f_type != TMPFS_MAGIC) {
    auto first = resident.begin(), last = resident.begin() + (32 << 20) / kPage;
    CHECK(std::count_if(first, last, [](unsigned char c) { return (c & 1) != 0; }) == 0);
  }
  for (size_t i = 0; i < kPieces; i++) {
    CHECK(temp.read(i * kPiece, 3) == Bytes(3, static_cast<uint8_t>(i + 1)));
    CHECK(temp.read((i + 1) * kPiece - 3, 3) == Bytes(3, static_cast<uint8_t>(i + 1)));
  }
}

TEST_CASE("File: a source is opened again as long as descriptors are left, else read as it is") {
  const TempFile temp;
  temp.write(0, Bytes(kPage, 5));
  rlimit old;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  {
    const File file = File::source(temp.fd(), Direct::kAuto, kPage);
    CHECK(file.fd() != temp.fd());
  }
  rlimit low = {static_cast<rlim_t>(temp.fd()) + 8, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  {
    File file = File::source(temp.fd(), Direct::kAuto, kPage);
    CHECK(file.fd() == temp.fd());
    CHECK(!file.direct());
    CHECK(file.is_aligned(1, 3, reinterpret_cast<void*>(5)));
    const File moved(std::move(file));
    CHECK(moved.fd() == temp.fd());
  }
  setrlimit(RLIMIT_NOFILE, &old);
  CHECK(fcntl(temp.fd(), F_GETFD) != -1);
}
