#include "base/blake2b.h"

#include <blake2.h>
#include <doctest/doctest.h>

#include <random>

#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

Bytes bytes_of_length(size_t size, std::mt19937& random) {
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// In pieces of all lengths, some of them empty.
Message cut_randomly(const Bytes& bytes, size_t most, std::mt19937& random) {
  Message message;
  for (size_t at = 0; at < bytes.size();) {
    size_t part = std::min(bytes.size() - at, static_cast<size_t>(random() % (most + 1)));
    message.push_back({bytes.data() + at, part});
    at += part;
  }
  return message;
}

void check_digests(const std::vector<size_t>& sizes, size_t most, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Bytes> all;
  std::vector<Message> messages;
  for (size_t size : sizes) all.push_back(bytes_of_length(size, random));
  for (const Bytes& bytes : all) messages.push_back(cut_randomly(bytes, most, random));
  std::vector<Digest> digests(sizes.size());
  blake2b_all(messages, digests);
  for (size_t i = 0; i < sizes.size(); i++) {
    Digest expected;
    blake2b(expected.data(), all[i].data(), nullptr, expected.size(), sizes[i], 0);
    CAPTURE(i);
    CAPTURE(sizes[i]);
    CHECK(digests[i] == expected);
  }
}

}  // namespace

TEST_CASE("digests of several messages are those of each by itself") {
  SUBCASE("none") {
    check_digests({}, 1, 1);
  }
  SUBCASE("one") {
    check_digests({100'000}, 5000, 2);
  }
  SUBCASE("lengths around those of blocks") {
    check_digests({0, 1, 127, 128, 129, 255, 256, 257, 0, 384}, 64, 3);
  }
  SUBCASE("of one length, in one piece") {
    check_digests({65536, 65536, 65536, 65536}, 1 << 20, 4);
  }
  SUBCASE("more than are taken at once") {
    check_digests({4096, 4096, 4096, 4096, 4096, 4096, 4096}, 300, 5);
  }
  SUBCASE("random lengths and pieces") {
    std::mt19937 random(6);
    for (uint32_t seed = 0; seed < 200; seed++) {
      std::vector<size_t> sizes(1 + random() % 9);
      for (size_t& size : sizes) size = random() % 3000;
      check_digests(sizes, 1 + random() % 600, seed);
    }
  }
}
