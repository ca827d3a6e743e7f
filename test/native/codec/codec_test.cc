// What both codecs have to do.
#include "codec/codec.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "base/error.h"
#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr Compression kBoth[] = {Compression::kDeflate, Compression::kZstd};

// The stream with nothing behind it, or nothing when it does not fit.
Bytes compress(Compressor& compressor, const Bytes& in, size_t capacity) {
  Bytes out(capacity);
  out.resize(compressor.compress(in.data(), in.size(), out.data(), capacity));
  return out;
}

// Decodes from and to memory of just the size, so that the sanitizer sees one byte too far.
bool decode(Compression type, const Bytes& in, Bytes& out) {
  const Bytes exact(in.begin(), in.end());
  return decompress(type, exact.data(), exact.size(), out.data(), out.size());
}

}  // namespace

TEST_CASE("codec: round trips of every cluster size, level and content") {
  for (const Compression type : kBoth) {
    for (const int level : {1, 2, 6, type == Compression::kZstd ? 22 : 12}) {
      const auto compressor = make_compressor(type, level);
      for (size_t size = 512; size <= 2 << 20; size *= level > 6 ? 16 : 2) {
        CAPTURE(static_cast<int>(type));
        CAPTURE(level);
        CAPTURE(size);
        Bytes half = random_bytes(size / 2, 1);
        half.resize(size);
        for (const Bytes& in : {text_bytes(size, 2), half, Bytes(size)}) {
          const Bytes stream = compress(*compressor, in, size - 1);
          REQUIRE(!stream.empty());
          Bytes out(size, 0xee);
          REQUIRE(decode(type, stream, out));
          REQUIRE(out == in);
        }
      }
    }
  }
}

TEST_CASE("codec: what does not fit is not compressed, and the next is all the same") {
  for (const Compression type : kBoth) {
    const auto compressor = make_compressor(type, 3);
    CHECK(compress(*compressor, random_bytes(65536, 1), 65535).empty());
    const Bytes in = text_bytes(65536, 1);
    const Bytes stream = compress(*compressor, in, 65535);
    CHECK(!stream.empty());
    CHECK(compress(*compressor, in, stream.size() / 2).empty());
    Bytes out(65536);
    CHECK(decode(type, compress(*compressor, in, 65535), out));
    CHECK(out == in);
  }
}

TEST_CASE("codec: levels there are not") {
  CHECK_THROWS_AS(make_compressor(Compression::kDeflate, 0), Error);
  CHECK_THROWS_AS(make_compressor(Compression::kDeflate, 13), Error);
  CHECK_THROWS_AS(make_compressor(Compression::kZstd, 0), Error);
  CHECK_THROWS_AS(make_compressor(Compression::kZstd, 23), Error);
}

TEST_CASE("codec: what follows the stream in its last sector does not matter") {
  for (const Compression type : kBoth) {
    const Bytes in = text_bytes(65536, 3);
    const auto compressor = make_compressor(type, 3);
    const Bytes stream = compress(*compressor, in, 65535);
    for (const Bytes& tail : {Bytes(511), random_bytes(511, 1), Bytes(1, 0xff), stream}) {
      Bytes followed = stream;
      followed.insert(followed.end(), tail.begin(), tail.end());
      Bytes out(65536);
      CHECK(decode(type, followed, out));
      CHECK(out == in);
    }
  }
}

TEST_CASE("codec: a stream that is cut anywhere") {
  for (const Compression type : kBoth) {
    const Bytes in = text_bytes(4096, 4);
    const auto compressor = make_compressor(type, 3);
    const Bytes stream = compress(*compressor, in, 4095);
    for (size_t size = 0; size < stream.size(); ++size) {
      CAPTURE(size);
      Bytes out(4096);
      // The end of a deflate stream may lie in a byte after all of the data, see deflate_test.
      const bool decoded = decode(type, Bytes(stream.data(), stream.data() + size), out);
      const bool may = type == Compression::kDeflate && size + 2 >= stream.size();
      REQUIRE((!decoded || (may && out == in)));
    }
  }
}

TEST_CASE("codec: a stream of less than a cluster") {
  for (const Compression type : kBoth) {
    const auto compressor = make_compressor(type, 3);
    const Bytes stream = compress(*compressor, text_bytes(65536 - 512, 5), 65535);
    Bytes out(65536);
    CHECK_FALSE(decode(type, stream, out));
  }
}

TEST_CASE("codec: nothing, and things that are no streams") {
  for (const Compression type : kBoth) {
    Bytes out(65536);
    CHECK_FALSE(decode(type, Bytes(), out));
    CHECK_FALSE(decode(type, Bytes(512, 0xff), out));
    CHECK_FALSE(decode(type, Bytes(65536), out));
    for (uint32_t seed = 0; seed < 2000; ++seed) {
      REQUIRE_FALSE(decode(type, random_bytes(1 + seed % 700, seed), out));
    }
  }
}

TEST_CASE("codec: damaged streams are refused or decoded, and nothing else happens") {
  std::mt19937 random(6);
  for (const Compression type : kBoth) {
    const auto compressor = make_compressor(type, 3);
    const Bytes stream = compress(*compressor, text_bytes(8192, 6), 8191);
    size_t refused = 0;
    for (int i = 0; i < 3000; ++i) {
      Bytes damaged = stream;
      for (size_t flips = 1 + random() % 4; flips > 0; --flips) {
        damaged[random() % damaged.size()] ^= static_cast<uint8_t>(1U << random() % 8);
      }
      if (random() % 4 == 0) damaged.resize(random() % damaged.size());
      Bytes out(8192);
      refused += decode(type, damaged, out) ? 0 : 1;
    }
    CHECK(refused > 100);
  }
}

TEST_CASE("codec: decompress() from many threads at once") {
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&good, i] {
      const Compression type = kBoth[i % 2];
      const auto compressor = make_compressor(type, 3);
      for (uint32_t seed = 0; seed < 50; ++seed) {
        const Bytes in = text_bytes(16384, seed);
        Bytes out(16384);
        if (decode(type, compress(*compressor, in, 16383), out) && out == in) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(good == 400);
}
