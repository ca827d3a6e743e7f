#include "base/file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/buffer.h"
#include "base/error.h"

namespace qb {

namespace {

// Measured on ext4: the step does not matter from 64 MiB on; an interrupted file on a file system
// without holes would show it, so not more than this.
constexpr uint64_t kReserveStep = 256 << 20;

// Large enough that write-back is sequential, small enough that little of the cache is taken.
constexpr uint64_t kWriteBackWindow = 32 << 20;

// sync_file_range(2), where the file has such a thing: not every kernel and file system does, and
// then it has done nothing and taken no error away.
void sync_range(int fd, off_t from, off_t length, unsigned flags) {
  if (sync_file_range(fd, from, length, flags) == 0) return;
  if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ESPIPE || errno == EINVAL) return;
  throw Error(errno, "write back");
}

// Descriptors that are left for the rest of the process: the target, the engine, a manifest, and
// the calling program.
constexpr rlim_t kSpareDescriptors = 64;

// The kernel hands out the lowest number that is free, so all below the one it gives are taken.
bool descriptors_to_spare(int fd) {
  int next = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (next < 0) return false;
  ::close(next);
  struct rlimit limit;
  check_errno(getrlimit(RLIMIT_NOFILE, &limit) == 0, "limit of open files");
  return limit.rlim_cur == RLIM_INFINITY ||
         static_cast<rlim_t>(next) + kSpareDescriptors < limit.rlim_cur;
}

int reopen(int fd, int flags) {
  std::string path = "/proc/self/fd/" + std::to_string(fd);
  return open(path.c_str(), flags | O_CLOEXEC);
}

// The alignment that direct transfers of an open file need, 0 where there is no direct I/O.
// statx reports it since Linux 6.1. Before, a device takes its logical sectors, and a page is what
// all file systems accept.
unsigned direct_alignment(int fd, bool is_device) {
#ifdef STATX_DIOALIGN
  struct statx info;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN)) {
    // A file that opens with O_DIRECT without support is buffered, or refuses the transfers.
    if (info.stx_dio_offset_align == 0) return 0;
    return std::max({info.stx_dio_offset_align, info.stx_dio_mem_align, 512u});
  }
#endif
  if (!is_device) return kPage;
  int sector = 0;
  if (ioctl(fd, BLKSSZGET, &sector) != 0 || sector <= 0) return 0;
  return std::max(static_cast<unsigned>(sector), 512u);
}

// Whether a device consists of whole blocks of `alignment` bytes: else a transfer of its last bytes
// would reach past its end.
bool is_whole(int device, unsigned alignment) {
  uint64_t size = 0;
  return ioctl(device, BLKGETSIZE64, &size) == 0 && size % alignment == 0;
}

}  // namespace

File::File(int fd, bool write, Direct direct, uint64_t unit) {
  int flags = write ? O_RDWR : O_RDONLY;
  struct stat info;
  check_errno(fstat(fd, &info) == 0, "stat");
  is_device_ = S_ISBLK(info.st_mode);
  if (direct != Direct::kOff) {
    fd_ = reopen(fd, flags | O_DIRECT);
    if (fd_ >= 0) {
      alignment_ = direct_alignment(fd_, is_device_);
      bool fits = alignment_ != 0 && alignment_ <= kPage && unit % alignment_ == 0;
      fits = fits && (!is_device_ || is_whole(fd_, alignment_));
      if (fits) return;
      ::close(fd_);
      alignment_ = 1;
    }
    if (direct == Direct::kOn) throw Error(EINVAL, "open with O_DIRECT");
  }
  fd_ = reopen(fd, flags);
  check_errno(fd_ >= 0, "open");
}

File::File(int fd) : fd_(fd), owned_(false) {
  struct stat info;
  check_errno(fstat(fd, &info) == 0, "stat");
  is_device_ = S_ISBLK(info.st_mode);
}

File File::source(int fd, Direct direct, uint64_t unit) {
  if (direct != Direct::kOn && !descriptors_to_spare(fd)) return File(fd);
  return {fd, false, direct, unit};
}

File::~File() {
  close();
}

void File::close() {
  int fd = std::exchange(fd_, -1);
  if (fd >= 0 && owned_) ::close(fd);
}

File::File(File&& other) noexcept
    : fd_(other.fd_),
      owned_(other.owned_),
      alignment_(other.alignment_),
      is_device_(other.is_device_),
      reserved_(other.reserved_),
      write_back_from_(other.write_back_from_) {
  other.fd_ = -1;
}

bool File::is_aligned(uint64_t offset, uint64_t length, const void* memory) const {
  return (offset | length | reinterpret_cast<uintptr_t>(memory)) % alignment_ == 0;
}

void File::reserve(uint64_t end) {
  if (is_device_ || end <= reserved_) return;
  uint64_t ahead = end + kReserveStep;
  if (ftruncate(fd_, static_cast<off_t>(ahead)) != 0) {
    // The file system's or the user's limit may lie between the two.
    ahead = end;
    check_errno(ftruncate(fd_, static_cast<off_t>(ahead)) == 0, "set length");
  }
  reserved_ = ahead;
}

void File::set_length(uint64_t length) {
  if (is_device_) return;
  check_errno(ftruncate(fd_, static_cast<off_t>(length)) == 0, "set length");
  reserved_ = length;
}

void File::written_up_to(uint64_t end) {
  if (direct() || end < write_back_from_ + kWriteBackWindow) return;
  auto from = static_cast<off_t>(write_back_from_);
  auto length = static_cast<off_t>(end - write_back_from_);
  sync_range(fd_, from, length, SYNC_FILE_RANGE_WRITE);
  if (from > 0) {
    auto window = static_cast<off_t>(std::min<uint64_t>(write_back_from_, 2 * kWriteBackWindow));
    sync_range(fd_, from - window, window,
               SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    posix_fadvise(fd_, from - window, window, POSIX_FADV_DONTNEED);
  }
  write_back_from_ = end;
}

bool File::zero_device_range(uint64_t offset, uint64_t length) {
  return fallocate(fd_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                   static_cast<off_t>(length)) == 0;
}

bool File::punch(uint64_t offset, uint64_t length) {
  return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                   static_cast<off_t>(length)) == 0;
}

}  // namespace qb
