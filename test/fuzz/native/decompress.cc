// Compressed clusters: any bytes, and sound streams of which some bytes are wrong. Whatever comes
// must fit the cluster, and a sound stream must give back what was compressed.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "codec/codec.h"

using namespace qb;

namespace {

constexpr size_t kFlips = 4;
constexpr size_t kHead = 3 + kFlips * 3;

// A copy of the bytes in memory of just their size: a read past their end is seen.
std::unique_ptr<uint8_t[]> exact(const uint8_t* bytes, size_t size) {
  std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  std::copy_n(bytes, size, copy.get());
  return copy;
}

bool expand(Compression type, const uint8_t* stream, size_t size, uint8_t* out, size_t cluster) {
  return decompress(type, exact(stream, size).get(), size, out, cluster);
}

// Made once: that takes longer than compressing.
Compressor& compressor(Compression type) {
  static const auto deflate = make_compressor(Compression::kDeflate, 1);
  static const auto zstd = make_compressor(Compression::kZstd, 1);
  return type == Compression::kZstd ? *zstd : *deflate;
}

}  // namespace

// Which codec, the size of the cluster, what is made of the stream; then guest data or the stream.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kHead) return 0;
  const Compression type = data[0] & 1 ? Compression::kZstd : Compression::kDeflate;
  const bool is_stream = data[0] & 2;
  // Large ones are slow, and rare.
  const size_t cluster = size_t{512} << (data[1] < 250 ? data[1] % 8 : 12);
  const std::unique_ptr<uint8_t[]> out(new uint8_t[cluster]);
  const uint8_t* rest = data + kHead;
  const size_t rest_size = size - kHead;
  if (is_stream) {
    expand(type, rest, rest_size, out.get(), cluster);
    return 0;
  }

  std::vector<uint8_t> guest(cluster);
  for (size_t i = 0; rest_size > 0 && i < cluster; i += rest_size) {
    std::copy_n(rest, std::min(rest_size, cluster - i), guest.data() + i);
  }
  std::vector<uint8_t> stream(cluster);
  stream.resize(compressor(type).compress(guest.data(), cluster, stream.data(), cluster));
  if (stream.empty()) return 0;
  bool damaged = false;
  for (size_t i = 0; i < data[2] % (kFlips + 1); i++) {
    const uint8_t* flip = data + 3 + i * 3;
    stream[(flip[0] << 8 | flip[1]) % stream.size()] ^= flip[2];
    damaged = true;
  }
  const bool whole = expand(type, stream.data(), stream.size(), out.get(), cluster);
  if (damaged) return 0;
  if (!whole || memcmp(out.get(), guest.data(), cluster) != 0) abort();
  return 0;
}
