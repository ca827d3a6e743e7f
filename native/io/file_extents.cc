#include "io/file_extents.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace qb {
namespace {

// A place in the file, or `none` where the kernel has none to name.
struct Found {
  bool supported = true;  // false: this file has no notion of holes
  bool exists = false;
  uint64_t at = 0;
};

Found seek(int fd, uint64_t from, int whence) {
  const off_t at = lseek(fd, static_cast<off_t>(from), whence);
  if (at >= 0) return {.exists = true, .at = static_cast<uint64_t>(at)};
  if (errno == ENXIO) return {};
  if (errno == EINVAL || errno == ENOTSUP || errno == ESPIPE) return {.supported = false};
  throw Error(errno, "lseek");
}

// Adds [start, end), joined with the run before it where that is alike.
void append(std::vector<FileRun>& runs, uint64_t start, uint64_t end, bool data) {
  if (start >= end) return;
  if (!runs.empty() && runs.back().data == data) {
    runs.back().length += end - start;
  } else {
    runs.push_back({start, end - start, data});
  }
}

}  // namespace

std::vector<FileRun> file_extents(int fd, uint64_t start, uint64_t end, size_t max) {
  std::vector<FileRun> runs;
  uint64_t at = start;
  while (at < end && runs.size() < max) {
    const Found data = seek(fd, at, SEEK_DATA);
    if (!data.supported) {
      append(runs, at, end, true);
      break;
    }
    if (!data.exists) {
      // Nothing but a hole up to the end of the file. SEEK_END knows a block device's size too,
      // which fstat does not.
      const uint64_t eof = seek(fd, 0, SEEK_END).at;
      append(runs, at, std::min(eof, end), false);
      append(runs, std::max(eof, at), end, true);
      break;
    }
    const uint64_t data_start = std::min(data.at, end);
    append(runs, at, data_start, false);
    if (data_start == end) break;
    const Found hole = seek(fd, data_start, SEEK_HOLE);
    // A file changed in between may have no hole there, or one at once: take the rest for data.
    const uint64_t data_end = hole.exists && hole.at > data_start ? std::min(hole.at, end) : end;
    append(runs, data_start, data_end, true);
    at = data_end;
  }
  if (runs.size() > max) runs.resize(max);
  return runs;
}

}  // namespace qb
