// Compressed clusters: bytes to bytes, whichever the image's compression type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/compressor.h"

namespace qb {

// `level`: 1…12 for deflate (libdeflate's), 1…22 for zstd. Throws Error(EINVAL) for another one and
// Error(ENOMEM).
std::unique_ptr<Compressor> make_compressor(Compression type, int level);

// Fills the cluster `out` of `out_size` bytes from `in`, the stream with whatever follows it in its
// last sector. False when that is not possible: not such a stream, damaged, or of another length.
// `out` may then hold anything. Thread-safe.
bool decompress(Compression type, const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size);

}  // namespace qb
