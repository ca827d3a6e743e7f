// A file as the engine uses it. The rules of O_DIRECT live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>

namespace qb {

enum class Direct : uint8_t { kAuto, kOn, kOff };

// An own open file description of a file that somebody else has open, so that O_DIRECT here never
// disturbs buffered reads there. Closed by the destructor. Not thread-safe, but its fd may be used
// by the engine's threads.
class File {
 public:
  // Opens `fd` again to read, as the constructor does, as long as there are descriptors to spare.
  // Where there are not, `fd` itself is read, buffered, unless `direct` is kOn: a chain has one
  // descriptor for each of its images, and may leave too few for a second one.
  // REQUIRES: `fd` stays open, and its kind of reads the same, as long as this is in use.
  static File source(int fd, Direct direct, uint64_t unit);
  // Reopens `fd` for reading, or for reading and writing. `unit` is the smallest piece that will be
  // transferred: where the file wants a larger alignment, kAuto means buffered.
  // Throws Error: EINVAL when kOn cannot be had.
  File(int fd, bool write, Direct direct, uint64_t unit);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  // Nothing but direct() and alignment() may follow.
  void close();
  int fd() const { return fd_; }
  bool direct() const { return alignment_ > 1; }
  // Alignment of offset, length and memory address of a transfer; 1 when buffered.
  unsigned alignment() const { return alignment_; }
  bool is_aligned(uint64_t offset, uint64_t length, const void* memory) const;

  // Sets the length ahead of the writes in big steps: a file that grows with every direct write is
  // three to five times slower. No effect on devices. Throws Error.
  void reserve(uint64_t end);
  // Sets the exact length. No effect on devices. Throws Error.
  void set_length(uint64_t length);
  // After buffered writes up to `end` in rising order: starts their write-back and drops data
  // written before from the page cache, which a backup would otherwise push everything else out of.
  // Throws Error if earlier writes could not be stored. The kernel reports that once to
  // each open file description: if it were ignored here, the next fdatasync(2) would succeed.
  void written_up_to(uint64_t end);
  // Makes [offset, offset + length) of a device read as zero without sending the zeroes. False
  // where the device has no such thing: then zeroes must be written.
  bool zero_device_range(uint64_t offset, uint64_t length);
  // Makes a range of a file a hole, which reads as zero. False where there are none: then zeroes
  // must be written.
  bool punch(uint64_t offset, uint64_t length);
  bool is_device() const { return is_device_; }

 private:
  explicit File(int fd);  // reads `fd` itself
  int fd_ = -1;
  bool owned_ = true;
  unsigned alignment_ = 1;
  bool is_device_ = false;
  uint64_t reserved_ = 0;
  uint64_t write_back_from_ = 0;
};

}  // namespace qb
