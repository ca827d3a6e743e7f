// Zstandard (RFC 8878), qcow2's compression type 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/compressor.h"

struct ZSTD_CCtx_s;

namespace qb {

// decompress() for Compression::kZstd. Frames, skippable ones too, are decoded one after the other
// until the cluster is full, and the last must end just there; bytes after it are ignored.
bool unzstd_cluster(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size);

// `level` 1…22, see make_compressor().
class ZstdCompressor final : public Compressor {
 public:
  explicit ZstdCompressor(int level);
  size_t compress(const uint8_t* in, size_t n, uint8_t* out, size_t out_capacity) override;

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
};

}  // namespace qb
