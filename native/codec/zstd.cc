#include "codec/zstd.h"

#include <zstd.h>
#include <zstd_errors.h>

#include <cerrno>
#include <new>

#include "base/error.h"

namespace qb {
namespace {

struct FreeZstd {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// One for each thread that decompresses, freed when the thread ends.
ZSTD_DCtx* thread_zstd() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> context(ZSTD_createDCtx());
  if (context == nullptr) throw std::bad_alloc();
  return context.get();
}

}  // namespace

// Frame by frame: the end of each is found first, so that bytes after the last one are never
// taken for a frame. Decoding whole frames straight into the cluster needs no window of its own: a
// frame that asks for gigabytes costs nothing. QEMU streams with the same outcome
// (qcow2_zstd_decompress).
bool unzstd_cluster(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size) {
  ZSTD_DCtx* context = thread_zstd();
  while (out_size > 0) {
    const size_t frame = ZSTD_findFrameCompressedSize(in, in_size);
    if (ZSTD_isError(frame)) return false;
    const size_t filled = ZSTD_decompressDCtx(context, out, out_size, in, frame);
    if (ZSTD_isError(filled)) return false;
    in += frame;
    in_size -= frame;
    out += filled;
    out_size -= filled;
  }
  return true;
}

ZstdCompressor::ZstdCompressor(int level) {
  if (level < 1 || level > ZSTD_maxCLevel()) throw Error(EINVAL, "zstd level");
  context_.reset(ZSTD_createCCtx());
  if (context_ == nullptr) throw Error(ENOMEM, "zstd context");
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
}

size_t ZstdCompressor::compress(const uint8_t* in, size_t n, uint8_t* out, size_t out_capacity) {
  const size_t size = ZSTD_compress2(context_.get(), out, out_capacity, in, n);
  if (!ZSTD_isError(size)) return size;
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return 0;
  throw Error(ENOMEM, "zstd");
}

void ZstdCompressor::Free::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

}  // namespace qb
