// What only deflate has, made with zlib.
#include "codec/deflate.h"

#include <doctest/doctest.h>
#include <zlib.h>

#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

struct Options {
  int window = -15;  // negative: raw
  int level = 6;
  int strategy = Z_DEFAULT_STRATEGY;
  int flush = Z_FINISH;
};

Bytes zlib_stream(Bytes in, Options options) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, options.level, Z_DEFLATED, options.window, 9, options.strategy) ==
          Z_OK);
  Bytes out(deflateBound(&stream, in.size()) + 64);
  stream.next_in = in.data();
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, options.flush) >= 0);
  REQUIRE(stream.avail_in == 0);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

bool inflate(const Bytes& in, Bytes& out) {
  return inflate_cluster(in.data(), in.size(), out.data(), out.size());
}

}  // namespace

TEST_CASE("inflate_cluster: any window, strategy and level, stored blocks among them") {
  for (const size_t size : {512, 65536, 2 << 20}) {
    const Bytes in = text_bytes(size, 1);
    for (int window = 9; window <= 15; ++window) {
      for (const int level : {0, 1, 9}) {
        for (const int strategy : {Z_DEFAULT_STRATEGY, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED}) {
          CAPTURE(window);
          CAPTURE(level);
          CAPTURE(strategy);
          Bytes out(size);
          REQUIRE(inflate(zlib_stream(in, {-window, level, strategy}), out));
          REQUIRE(out == in);
        }
      }
    }
  }
}

TEST_CASE("inflate_cluster: a stream that has no end but fills the cluster") {
  const Bytes in = text_bytes(65536, 2);
  const Bytes endless = zlib_stream(in, {.flush = Z_SYNC_FLUSH});
  Bytes out(65536);
  CHECK(inflate(endless, out));
  CHECK(out == in);
  Bytes larger(65537);
  CHECK_FALSE(inflate(endless, larger));
}

TEST_CASE("inflate_cluster: more than a cluster is cut off") {
  const Bytes in = text_bytes(131072, 3);
  for (const int level : {0, 6}) {
    Bytes out(65536);
    CHECK(inflate(zlib_stream(in, {.level = level}), out));
    CHECK(out == Bytes(in.begin(), in.begin() + 65536));
  }
}

TEST_CASE("inflate_cluster: streams with a zlib or gzip header are none") {
  const Bytes in = text_bytes(65536, 4);
  Bytes out(65536);
  CHECK_FALSE(inflate(zlib_stream(in, {.window = 15}), out));
  CHECK_FALSE(inflate(zlib_stream(in, {.window = 31}), out));
}

TEST_CASE("inflate_cluster: a distance to before the cluster") {
  // Fixed Huffman block: a match of length 3 at distance 1 with nothing written yet.
  const Bytes stream = {0x03, 0x02, 0x00, 0x00};
  Bytes out(512);
  CHECK_FALSE(inflate(stream, out));
}

TEST_CASE("DeflateCompressor: zlib reads it, as QEMU does, whatever window it is told") {
  const Bytes in = text_bytes(1 << 20, 5);
  Bytes stream(in.size());
  stream.resize(DeflateCompressor(6).compress(in.data(), in.size(), stream.data(), in.size() - 1));
  for (const int window : {-12, -15}) {
    Bytes out(in.size());
    z_stream state{};
    REQUIRE(inflateInit2(&state, window) == Z_OK);
    state.next_in = stream.data();
    state.avail_in = static_cast<uInt>(stream.size());
    state.next_out = out.data();
    state.avail_out = static_cast<uInt>(out.size());
    CHECK(::inflate(&state, Z_FINISH) == Z_STREAM_END);
    inflateEnd(&state);
    CHECK(out == in);
  }
}
