// What only zstd has: frames.
#include "codec/zstd.h"

#include <doctest/doctest.h>
#include <zstd.h>

#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

struct FrameOptions {
  bool sized = true;  // the frame says how long its content is
  bool checksum = false;
  int window_log = 0;  // 0: what zstd chooses
};

Bytes frame(const Bytes& in, FrameOptions options = {}) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, options.checksum ? 1 : 0);
  if (options.window_log != 0) {
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, options.window_log);
  }
  Bytes out(ZSTD_compressBound(in.size()) + 64);
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  if (!options.sized) {
    // Begun before its end is known.
    while (input.pos < input.size) {
      REQUIRE_FALSE(ZSTD_isError(ZSTD_compressStream2(context, &output, &input, ZSTD_e_continue)));
    }
  }
  REQUIRE(ZSTD_compressStream2(context, &output, &input, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(context);
  out.resize(output.pos);
  return out;
}

// RFC 8878, 3.1.2.
Bytes skippable(uint8_t size) {
  Bytes out = {0x5f, 0x2a, 0x4d, 0x18, size, 0, 0, 0};
  out.resize(8 + size, 0xaa);
  return out;
}

Bytes join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

bool decode(const Bytes& in, Bytes& out) {
  return unzstd_cluster(in.data(), in.size(), out.data(), out.size());
}

const Bytes kIn = text_bytes(65536, 1);
const Bytes kFirst(kIn.begin(), kIn.begin() + 20000);
const Bytes kSecond(kIn.begin() + 20000, kIn.end());

}  // namespace

TEST_CASE("unzstd_cluster: several frames, skippable and empty ones") {
  const Bytes garbage = random_bytes(300, 1);
  for (const Bytes& stream :
       {join({frame(kFirst), frame(kSecond)}), join({frame(kFirst), frame(kSecond), garbage}),
        join({skippable(0), frame(kFirst), skippable(200), frame(kSecond)}),
        join({frame({}), frame(kFirst), frame({}), frame(kSecond, {.sized = false}), garbage})}) {
    Bytes out(kIn.size());
    CHECK(decode(stream, out));
    CHECK(out == kIn);
  }
}

TEST_CASE("unzstd_cluster: frames of unknown size and with any window, without the memory for it") {
  for (const int window_log : {10, 17, 21, 27}) {
    CAPTURE(window_log);
    Bytes out(kIn.size());
    CHECK(decode(frame(kIn, {.sized = false, .window_log = window_log}), out));
    CHECK(out == kIn);
  }
}

TEST_CASE("unzstd_cluster: a checksum is looked at") {
  Bytes stream = frame(kIn, {.checksum = true});
  Bytes out(kIn.size());
  CHECK(decode(stream, out));
  CHECK(out == kIn);
  stream.back() ^= 1;
  CHECK_FALSE(decode(stream, out));
}

TEST_CASE("unzstd_cluster: frames that do not end where the cluster does") {
  for (const bool sized : {true, false}) {
    CAPTURE(sized);
    const FrameOptions options = {.sized = sized};
    Bytes small(kIn.size() - 1);
    Bytes large(kIn.size() + 1);
    CHECK_FALSE(decode(frame(kIn, options), small));
    CHECK_FALSE(decode(frame(kIn, options), large));
    CHECK_FALSE(decode(join({frame(kFirst, options), frame(kSecond, options)}), small));
    CHECK_FALSE(decode(join({frame(kFirst, options), frame(kSecond, options)}), large));
  }
}

TEST_CASE("unzstd_cluster: nothing but skippable frames") {
  Bytes out(512);
  CHECK_FALSE(decode(join({skippable(100), skippable(3)}), out));
}
