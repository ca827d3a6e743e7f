#include "codec/deflate.h"

#include <libdeflate.h>
#include <zlib.h>

#include <cerrno>
#include <new>

#include "base/error.h"

namespace qb {
namespace {

constexpr int kLowestLevel = 1;
constexpr int kHighestLevel = 12;

struct FreeDeflate {
  void operator()(libdeflate_decompressor* decompressor) const {
    libdeflate_free_decompressor(decompressor);
  }
};

// One for each thread that inflates, freed when the thread ends.
libdeflate_decompressor* thread_deflate() {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeDeflate> decompressor(
      libdeflate_alloc_decompressor());
  if (decompressor == nullptr) throw std::bad_alloc();
  return decompressor.get();
}

// zlib stops where the output is full, whatever the stream would hold beyond. A negative window
// means raw deflate; 15 bits are the format's largest, and cost nothing, since distances are looked
// up in the output itself when all of it is asked for at once.
bool inflate_until_full(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size) {
  z_stream stream{};
  stream.next_in = const_cast<Bytef*>(in);
  stream.avail_in = static_cast<uInt>(in_size);
  stream.next_out = out;
  stream.avail_out = static_cast<uInt>(out_size);
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  const int rc = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  // Z_BUF_ERROR: out of room, or out of input. Either is fine when the cluster is full.
  return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && stream.avail_out == 0;
}

}  // namespace

// libdeflate is over twice as fast as zlib and insists on a stream that is complete and just one
// cluster long. QEMU (qcow2_zlib_decompress) takes output that fills the cluster, so what
// libdeflate refuses is tried again.
bool inflate_cluster(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size) {
  const libdeflate_result rc =
      libdeflate_deflate_decompress(thread_deflate(), in, in_size, out, out_size, nullptr);
  if (rc == LIBDEFLATE_SUCCESS) return true;
  return inflate_until_full(in, in_size, out, out_size);
}

// The spec's "deflate" says nothing of a window, and QEMU itself writes one of 4 KiB and names it
// when it reads. libdeflate always uses 32 KiB, which QEMU can read, too: it inflates in one
// call into one flat cluster, and zlib then finds distances in that output, not in a window.
DeflateCompressor::DeflateCompressor(int level) {
  if (level < kLowestLevel || level > kHighestLevel) throw Error(EINVAL, "deflate level");
  compressor_.reset(libdeflate_alloc_compressor(level));
  if (compressor_ == nullptr) throw Error(ENOMEM, "deflate context");
}

size_t DeflateCompressor::compress(const uint8_t* in, size_t n, uint8_t* out, size_t out_capacity) {
  return libdeflate_deflate_compress(compressor_.get(), in, n, out, out_capacity);
}

void DeflateCompressor::Free::operator()(libdeflate_compressor* compressor) const {
  libdeflate_free_compressor(compressor);
}

}  // namespace qb
