#include "image/packer.h"

#include <algorithm>
#include <cstring>

namespace qb {

Packer::Packer(unsigned cluster_bits, BufferPool& pool, Output& output, Refcounts& refcounts)
    : cluster_bits_(cluster_bits), pool_(pool), output_(output), refcounts_(refcounts) {}

void Packer::open(uint64_t& end) {
  buffer_ = pool_.get_zeroed(1ull << cluster_bits_);
  cluster_ = end++;
  opened_++;
  used_ = 0;
}

void Packer::append(const uint8_t* bytes, size_t size) {
  memcpy(buffer_->data() + used_, bytes, size);
  used_ += size;
  refcounts_.add(cluster_);
}

void Packer::close() {
  if (!buffer_) return;
  output_.put(cluster_ << cluster_bits_, buffer_->data(), 1ull << cluster_bits_, buffer_);
  buffer_.reset();
}

uint64_t Packer::add(const uint8_t* stream, size_t size, uint64_t& end) {
  size_t cluster_size = 1ull << cluster_bits_;
  if (buffer_ && refcounts_.get(cluster_) == Refcounts::kMost) close();
  if (buffer_ && used_ + size > cluster_size && end != cluster_ + 1) {
    // The cluster after the open one is taken: a stream cannot be in two places.
    close();
  }
  if (!buffer_) open(end);
  uint64_t offset = (cluster_ << cluster_bits_) + used_;
  size_t fits = std::min(size, cluster_size - used_);
  if (fits > 0) append(stream, fits);
  if (fits < size) {
    close();
    open(end);
    append(stream + fits, size - fits);
  }
  if (used_ == cluster_size) close();
  return offset;
}

}  // namespace qb
