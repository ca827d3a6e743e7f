// Raw deflate (RFC 1951), qcow2's compression type 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/compressor.h"

struct libdeflate_compressor;

namespace qb {

// decompress() for Compression::kDeflate. Any window is read, `in` may go on after the stream, and
// the stream may hold more than one cluster: as in QEMU, the first cluster of output counts.
bool inflate_cluster(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size);

// `level` 1…12, see make_compressor().
class DeflateCompressor final : public Compressor {
 public:
  explicit DeflateCompressor(int level);
  size_t compress(const uint8_t* in, size_t n, uint8_t* out, size_t out_capacity) override;

 private:
  struct Free {
    void operator()(libdeflate_compressor* compressor) const;
  };
  std::unique_ptr<libdeflate_compressor, Free> compressor_;
};

}  // namespace qb
