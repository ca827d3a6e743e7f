#include "image/raw_writer.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/error.h"

namespace qb {

RawWriter::RawWriter(uint64_t size, uint64_t unit, uint64_t end, BufferPool& pool, Output& output)
    : size_(size), unit_(unit), end_(end), pool_(pool), output_(output) {}

void RawWriter::write_data(const uint8_t* data, uint64_t length, const BufferRef& owner) {
  output_.put(next_, data, std::min(length, end_ - next_), owner);
  next_ += length;
}

void RawWriter::write_compressed(const uint8_t*, size_t) {
  throw Error(EINVAL, "compressed cluster for a raw disk");
}

void RawWriter::write_zeroes(uint64_t length) {
  uint64_t end = std::min(next_ + length, end_);
  // The rest of the last unit too: the disk ends in it, the target may not.
  if (next_ + length >= size_) end = std::min(round_up(size_, unit_), end_);
  if (!output_.zero(next_, end - next_)) put_zeroes(end - next_);
  next_ += length;
}

void RawWriter::put_zeroes(uint64_t length) {
  constexpr uint64_t kStep = 1 << 20;
  if (!zeroes_) zeroes_ = pool_.get_zeroed(kStep);
  for (uint64_t done = 0; done < length; done += kStep) {
    output_.put(next_ + done, zeroes_->data(), std::min(kStep, length - done), zeroes_);
  }
}

void RawWriter::skip(uint64_t length) {
  write_zeroes(length);
}

}  // namespace qb
