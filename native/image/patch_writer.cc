#include "image/patch_writer.h"

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace qb {

namespace {

// Zeroes that are put are shared by all puts: this much of them at a time. Shorter ranges are put
// in any case, because a hole costs a call into the file system, and the file falls into pieces.
constexpr uint64_t kStep = 1 << 20;

}  // namespace

PatchWriter::PatchWriter(uint64_t size, uint64_t unit, BufferPool& pool, Output& output)
    : size_(size), unit_(unit), pool_(pool), output_(output) {}

void PatchWriter::data(const uint8_t* data, uint64_t length, const BufferRef& owner) {
  output_.put(next_, data, length, owner);
  next_ += length;
}

void PatchWriter::compressed(const uint8_t*, size_t) {
  throw Error(EINVAL, "compressed cluster for a file that exists");
}

void PatchWriter::zero(uint64_t length) {
  if (length < kStep || !output_.zero(next_, length)) {
    if (!zeroes_) zeroes_ = pool_.get_zeroed(kStep);
    for (uint64_t done = 0; done < length; done += kStep) {
      output_.put(next_ + done, zeroes_->data(), std::min(kStep, length - done), zeroes_);
    }
  }
  next_ += length;
}

void PatchWriter::skip(uint64_t length) {
  next_ += length;
}

}  // namespace qb
