// Compresses clusters: bytes to bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace qb {

// The values of the qcow2 header's compression_type (byte 104).
enum class Compression : uint8_t { kDeflate = 0, kZstd = 1 };

// Holds a reusable context. Thread-safety: one thread at a time.
class Compressor {
 public:
  virtual ~Compressor() = default;
  // Compresses `n` bytes (a whole cluster: the format has no shorter ones) into `out`. Returns the
  // bytes written, or 0 when they would be more than `out_capacity`: the cluster is then to be
  // stored as it is. QEMU's limit is out_capacity = n - 1.
  virtual size_t compress(const uint8_t* in, size_t n, uint8_t* out, size_t out_capacity) = 0;
};

}  // namespace qb
