#include "format/header.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "base/error.h"
#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

uint64_t number(const Bytes& bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; i++) value = value << 8 | bytes.at(at + i);
  return value;
}

std::string text(const Bytes& bytes, size_t at, size_t size) {
  return {bytes.begin() + static_cast<ptrdiff_t>(at),
          bytes.begin() + static_cast<ptrdiff_t>(at + size)};
}

struct Extension {
  uint32_t type;
  std::string data;
};

// Everything from byte 112 to the end marker; `end`: the byte behind it.
std::vector<Extension> extensions(const Bytes& bytes, size_t& end) {
  std::vector<Extension> found;
  for (size_t at = 112;;) {
    auto type = static_cast<uint32_t>(number(bytes, at, 4));
    auto size = static_cast<size_t>(number(bytes, at + 4, 4));
    found.push_back({type, text(bytes, at + 8, size)});
    at += 8 + (size + 7) / 8 * 8;
    if (type == 0) {
      end = at;
      return found;
    }
  }
}

// ENAMETOOLONG, or 0 if the name was taken.
int refusal(unsigned bits, size_t name_size) {
  try {
    encode_header({.cluster_bits = bits,
                   .backing_file = std::string(name_size, 'n'),
                   .backing_format = "qcow2"});
  } catch (const Error& error) {
    return error.errnum();
  }
  return 0;
}

}  // namespace

TEST_CASE("encode_header: every field where the specification has it") {
  Bytes bytes = encode_header({.cluster_bits = 16,
                               .size = 0x123456789a00,
                               .l1_offset = 0x1122330000,
                               .l1_size = 0x246,
                               .reftable_offset = 0x4455660000,
                               .reftable_clusters = 7});
  REQUIRE(bytes.size() == 65536);
  CHECK(text(bytes, 0, 4) == "QFI\xfb");
  CHECK(number(bytes, 4, 4) == 3);
  CHECK(number(bytes, 8, 8) == 0);    // backing_file_offset
  CHECK(number(bytes, 16, 4) == 0);   // backing_file_size
  CHECK(number(bytes, 20, 4) == 16);  // cluster_bits
  CHECK(number(bytes, 24, 8) == 0x123456789a00);
  CHECK(number(bytes, 32, 4) == 0);  // crypt_method
  CHECK(number(bytes, 36, 4) == 0x246);
  CHECK(number(bytes, 40, 8) == 0x1122330000);
  CHECK(number(bytes, 48, 8) == 0x4455660000);
  CHECK(number(bytes, 56, 4) == 7);
  CHECK(number(bytes, 60, 4) == 0);     // nb_snapshots
  CHECK(number(bytes, 64, 8) == 0);     // snapshots_offset
  CHECK(number(bytes, 72, 8) == 0);     // incompatible_features
  CHECK(number(bytes, 80, 8) == 0);     // compatible_features
  CHECK(number(bytes, 88, 8) == 0);     // autoclear_features
  CHECK(number(bytes, 96, 4) == 4);     // refcount_order
  CHECK(number(bytes, 100, 4) == 112);  // header_length
  CHECK(number(bytes, 104, 8) == 0);    // compression_type, padding
}

TEST_CASE("encode_header: zstd is told by the field and by its incompatible feature bit") {
  Bytes bytes = encode_header({.compression = CompressionType::kZstd});
  CHECK(number(bytes, 72, 8) == 8);
  CHECK(number(bytes, 104, 1) == 1);
  CHECK(number(bytes, 105, 7) == 0);
}

TEST_CASE("encode_header: extensions, then the backing file's name, then nothing") {
  for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; bits++) {
    CAPTURE(bits);
    Bytes bytes =
        encode_header({.cluster_bits = bits, .backing_file = "base.raw", .backing_format = "raw"});
    REQUIRE(bytes.size() == 1u << bits);
    size_t end = 0;
    std::vector<Extension> found = extensions(bytes, end);
    CHECK(found[0].type == 0xe2792aca);
    CHECK(found[0].data == "raw");
    CHECK(number(bytes, 8, 8) == end);
    CHECK(number(bytes, 16, 4) == 8);
    CHECK(text(bytes, end, 8) == "base.raw");
    CHECK(std::all_of(bytes.begin() + static_cast<ptrdiff_t>(end) + 8, bytes.end(),
                      [](uint8_t byte) { return byte == 0; }));
    // As QEMU, which writes the names of the features only where there is room.
    CHECK(found.size() == (bits > 12 ? 3 : 2));
  }
}

TEST_CASE("encode_header: the table of feature names") {
  size_t end = 0;
  std::vector<Extension> found = extensions(encode_header({}), end);
  REQUIRE(found.size() == 2);
  CHECK(found[0].type == 0x6803f857);
  REQUIRE(found[0].data.size() % 48 == 0);
  auto names = [&](uint8_t type, uint8_t bit) {
    for (size_t at = 0; at < found[0].data.size(); at += 48) {
      if (found[0].data[at] == type && found[0].data[at + 1] == bit) {
        return std::string(found[0].data.substr(at + 2, 46).c_str());
      }
    }
    return std::string();
  };
  CHECK(names(0, 0) == "dirty bit");
  CHECK(names(0, 3) == "compression type");
  CHECK(names(0, 4) == "extended L2");
  CHECK(names(1, 0) == "lazy refcounts");
  CHECK(names(2, 0) == "bitmaps");
  CHECK(names(3, 0).empty());
}

TEST_CASE("encode_header: a backing file's name ends with the cluster, or at 1023 bytes") {
  // 512 bytes less the header, the extension of the format and the end marker.
  CHECK(refusal(9, 512 - 112 - 16 - 8) == 0);
  CHECK(refusal(9, 512 - 112 - 16 - 8 + 1) == ENAMETOOLONG);
  CHECK(refusal(10, 1024 - 112 - 16 - 8) == 0);
  CHECK(refusal(10, 1024 - 112 - 16 - 8 + 1) == ENAMETOOLONG);
  for (unsigned bits : {11u, 16u, 21u}) {
    CAPTURE(bits);
    CHECK(refusal(bits, 1023) == 0);
    CHECK(refusal(bits, 1024) == ENAMETOOLONG);
  }
}
