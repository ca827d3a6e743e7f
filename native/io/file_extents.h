// Where a file has data and where holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qb {

// A run of bytes of a file that is data, or a hole that reads as zeroes.
struct FileRun {
  uint64_t start = 0;   // bytes
  uint64_t length = 0;  // bytes, never 0
  bool data = false;

  bool operator==(const FileRun&) const = default;
};

// The runs of [start, end) in order and without gaps, neighbours being different, at most `max` of
// them: where the last one ends before `end`, ask again from there. Where the file system keeps no
// holes, and past the end of the file (which then shrank while it was looked at), all is data, so
// that the read finds out. Uses lseek(2), which moves the descriptor's offset: harmless, since all
// I/O here is positional. Throws Error for anything else the kernel says.
std::vector<FileRun> file_extents(int fd, uint64_t start, uint64_t end, size_t max);

}  // namespace qb
