#include "codec/codec.h"

#include <cerrno>

#include "base/error.h"
#include "codec/deflate.h"
#include "codec/zstd.h"

namespace qb {

std::unique_ptr<Compressor> make_compressor(Compression type, int level) {
  switch (type) {
    case Compression::kDeflate:
      return std::make_unique<DeflateCompressor>(level);
    case Compression::kZstd:
      return std::make_unique<ZstdCompressor>(level);
  }
  throw Error(EINVAL, "compression type");
}

bool decompress(Compression type, const uint8_t* in, size_t in_size, uint8_t* out,
                size_t out_size) {
  switch (type) {
    case Compression::kDeflate:
      return inflate_cluster(in, in_size, out, out_size);
    case Compression::kZstd:
      return unzstd_cluster(in, in_size, out, out_size);
  }
  return false;
}

}  // namespace qb
