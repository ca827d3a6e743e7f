// Memory that O_DIRECT accepts, and the pool that keeps it from being mapped and faulted in anew
// for every request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

namespace qb {

// Alignment of memory and offsets that every known device and file system accepts.
inline constexpr size_t kPage = 4096;

// Page-aligned memory. Move-free: shared by BufferRef, given back to its pool by the last holder.
class Buffer {
 public:
  explicit Buffer(size_t size);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  uint8_t* data() { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_;
  size_t size_;
};

using BufferRef = std::shared_ptr<Buffer>;

// Hands out buffers of at least the wanted size, in powers of two; content is undefined.
// Thread-safe. The pool must outlive its buffers.
class BufferPool {
 public:
  // Free memory beyond `max_free` bytes is returned to the system, what was given back first goes
  // first: whoever changes from small buffers to large ones must not find the pool full of small
  // ones (measured: comparing 2 x 3 GB took 1.8 s of system time for faults, now 0.6 s).
  explicit BufferPool(size_t max_free = kMaxFree) : max_free_(max_free) {}
  BufferRef get(size_t size);
  // Zero-filled over `size` bytes.
  BufferRef get_zeroed(size_t size);
  // Bytes of the buffer that get(size) hands out.
  static size_t size_of(size_t size);
  // Bytes handed out and not yet given back.
  size_t in_use() const;

 private:
  // A copy that changes from small to large chunks must not keep its budget twice.
  static constexpr size_t kMaxFree = 16 << 20;
  static constexpr int kClasses = 52;  // powers of two from one page on
  struct Free {
    std::unique_ptr<Buffer> buffer;
    uint64_t given_back;  // counts up
  };
  void give_back(Buffer* buffer, int size_class);
  std::unique_ptr<Buffer> take_oldest();

  const size_t max_free_;
  mutable std::mutex mutex_;
  std::deque<Free> free_[kClasses];  // oldest first
  uint64_t given_back_ = 0;
  size_t in_use_ = 0;
  size_t free_bytes_ = 0;
};

}  // namespace qb
