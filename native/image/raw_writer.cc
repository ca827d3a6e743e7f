#include "image/raw_writer.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/error.h"

namespace qb {

RawWriter::RawWriter(File& file, uint64_t size, BufferPool& pool, Output& output)
    : file_(file), size_(size), pool_(pool), output_(output) {
  // Whole units: the last write may stand past the end of the disk until the length is cut.
  file_.set_length(round_up(size, kPage));
}

// A device ends where it ends, and what lies behind the disk is not ours. But a direct write takes
// whole sectors, and where they are large the disk may end within one.
uint64_t RawWriter::device_end() const {
  return round_up(size_, file_.alignment());
}

void RawWriter::data(const uint8_t* data, uint64_t length, const BufferRef& owner) {
  uint64_t wanted = file_.is_device() ? std::min(length, device_end() - next_) : length;
  output_.put(next_, data, wanted, owner);
  next_ += length;
}

void RawWriter::compressed(const uint8_t*, size_t) {
  throw Error(EINVAL, "compressed cluster for a raw disk");
}

void RawWriter::zero(uint64_t length) {
  if (file_.is_device()) {
    uint64_t end = next_ + length >= size_ ? device_end() : next_ + length;
    if (!file_.zero_device_range(next_, end - next_)) {
      constexpr uint64_t kStep = 1 << 20;
      BufferRef zeroes = pool_.get_zeroed(kStep);
      for (uint64_t at = next_; at < end; at += kStep) {
        output_.put(at, zeroes->data(), std::min(kStep, end - at), zeroes);
      }
    }
  }
  next_ += length;
}

void RawWriter::skip(uint64_t length) {
  zero(length);
}

}  // namespace qb
