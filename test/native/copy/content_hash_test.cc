#include "copy/content_hash.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kBlock = 4 << 20;

Bytes hash_of(const Bytes& bytes) {
  Bytes digest(32);
  blake2b(digest.data(), bytes.data(), nullptr, digest.size(), bytes.size(), 0);
  return digest;
}

std::string hex(const Bytes& bytes) {
  std::string text;
  for (uint8_t byte : bytes) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}

void append(Bytes& to, const Bytes& bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_number(Bytes& to, uint64_t number) {
  for (int i = 0; i < 8; i++) to.push_back(static_cast<uint8_t>(number >> (8 * i)));
}

enum class Kind { kSkip, kZero, kData };
struct Run {
  Kind kind;
  uint64_t length;
};

// A disk: what each byte is, and its value.
struct Disk {
  std::vector<Kind> kinds;
  Bytes bytes;

  Disk(const std::vector<Run>& runs, uint32_t seed) {
    std::mt19937 random(seed);
    for (const Run& run : runs) {
      for (uint64_t i = 0; i < run.length; i++) {
        kinds.push_back(run.kind);
        bytes.push_back(run.kind == Kind::kData ? static_cast<uint8_t>(random() | 1) : 0);
      }
    }
  }

  // By the words of content_hash.h, byte by byte. `group`: blocks, of a large disk; 0: it is not
  // one.
  std::string expected(bool has_backing, uint64_t group = 0) const {
    Bytes digests;
    for (uint64_t start = 0; start < bytes.size();) {
      uint64_t end = std::min<uint64_t>(start + kBlock, bytes.size());
      auto is_zero = [this](uint64_t from) {
        if (from + kBlock > kinds.size()) return false;
        return std::all_of(kinds.begin() + from, kinds.begin() + from + kBlock,
                           [](Kind kind) { return kind == Kind::kZero; });
      };
      if (has_backing && group > 0 && is_zero(start)) {
        while (is_zero(end)) end += kBlock;
      }
      uint64_t from = std::exchange(start, end);
      if (!has_backing) {
        append(digests, hash_of(Bytes(bytes.begin() + from, bytes.begin() + end)));
        continue;
      }
      Bytes block;
      for (uint64_t at = from; at < end;) {
        uint64_t to = at;
        while (to < end && kinds[to] == kinds[at]) to++;
        if (kinds[at] != Kind::kSkip) {
          append_number(block, at);
          append_number(block, to - at);
          block.push_back(kinds[at] == Kind::kZero ? 1 : 2);
        }
        if (kinds[at] == Kind::kData) {
          append(block, Bytes(bytes.begin() + at, bytes.begin() + to));
        }
        at = to;
      }
      if (!block.empty()) append(digests, hash_of(block));
    }
    if (group == 0 || has_backing) return hex(hash_of(digests));
    Bytes groups;
    for (size_t at = 0; at < digests.size(); at += group * 32) {
      size_t end = std::min<size_t>(at + group * 32, digests.size());
      append(groups, hash_of(Bytes(digests.begin() + at, digests.begin() + end)));
    }
    return hex(hash_of(groups));
  }

  // The runs given in pieces of `most` bytes; the last one may stand past the end of the disk.
  std::string found(bool has_backing, uint64_t most, uint64_t past = 0, uint64_t group = 0) const {
    BufferPool pool;
    // Ends after the workers, as in the pipeline.
    std::optional<ContentHash> hash;
    std::optional<BlockHasher> hasher;
    Workers workers(3);
    hasher.emplace(workers, [] {});
    ContentHash::Large large;
    if (group > 0) large = {.above = 0, .group = group};
    hash.emplace(bytes.size(), has_backing, *hasher, large);
    for (uint64_t at = 0; at < bytes.size();) {
      uint64_t to = at;
      while (to < bytes.size() && kinds[to] == kinds[at] && to - at < most) to++;
      uint64_t length = to - at + (to == bytes.size() ? past : 0);
      if (kinds[at] == Kind::kSkip) hash->add_skipped(length);
      if (kinds[at] == Kind::kZero) hash->add_zeroes(length);
      if (kinds[at] == Kind::kData) {
        BufferRef buffer = pool.get_zeroed(length);
        std::copy(bytes.begin() + at, bytes.begin() + to, buffer->data());
        hash->add_data(buffer->data(), length, buffer);
      }
      at = to;
    }
    hasher->start();
    while (hash->busy()) std::this_thread::yield();
    CHECK(pool.in_use() == 0);
    return hash->finish();
  }
};

}  // namespace

TEST_CASE("ContentHash: known answers") {
  // b2sum -l 256 of nothing: no block at all.
  CHECK(Disk({}, 1).found(false, 1) ==
        "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  // Two blocks of zeroes, hashed by b2sum and put together by hand.
  Disk zeroes({{Kind::kZero, 2 * kBlock}}, 1);
  CHECK(zeroes.found(false, kBlock) == zeroes.expected(false));
}

TEST_CASE("ContentHash: whatever pieces a disk comes in") {
  const std::vector<std::vector<Run>> disks = {
      {{Kind::kData, 1}},
      {{Kind::kData, kBlock}},
      {{Kind::kData, kBlock + 512}},
      {{Kind::kZero, kBlock + 512}},
      {{Kind::kSkip, kBlock + 512}},
      {{Kind::kSkip, kBlock}, {Kind::kZero, kBlock}, {Kind::kData, 4096}},
      {{Kind::kZero, 65536}, {Kind::kData, 65536}, {Kind::kSkip, 2 * kBlock}, {Kind::kZero, 512}},
      {{Kind::kData, kBlock - 512}, {Kind::kZero, 1024}, {Kind::kData, kBlock}},
      {{Kind::kSkip, 65536}, {Kind::kZero, 3 * kBlock}, {Kind::kSkip, 65536}},
  };
  uint32_t seed = 1;
  for (const auto& runs : disks) {
    Disk disk(runs, seed++);
    for (bool has_backing : {false, true}) {
      CAPTURE(seed);
      CAPTURE(has_backing);
      std::string expected = disk.expected(has_backing);
      CHECK(disk.found(has_backing, 100'000) == expected);
      CHECK(disk.found(has_backing, 1ull << 40, 3000) == expected);
    }
  }
}

TEST_CASE("ContentHash: a large disk, in groups of two blocks") {
  Disk disk({{Kind::kData, 9},
             {Kind::kSkip, kBlock - 9},
             {Kind::kZero, kBlock},
             {Kind::kSkip, kBlock},
             {Kind::kZero, kBlock + 512}},
            1);
  for (bool has_backing : {false, true}) {
    CAPTURE(has_backing);
    CHECK(disk.found(has_backing, 1'000'000, 0, 2) == disk.expected(has_backing, 2));
  }
}

TEST_CASE("ContentHash: data, zero and what is left to the backing file are told apart") {
  auto found = [](Kind kind) {
    return Disk({{Kind::kData, 65536}, {kind, 65536}, {Kind::kData, 65536}}, 1)
        .found(true, 1 << 20);
  };
  CHECK(found(Kind::kSkip) != found(Kind::kZero));
  Disk a({{Kind::kZero, 4096}, {Kind::kSkip, 4096}}, 1);
  Disk b({{Kind::kSkip, 4096}, {Kind::kZero, 4096}}, 1);
  CHECK(a.found(true, 4096) != b.found(true, 4096));
  CHECK(a.found(false, 4096) == b.found(false, 4096));
}

TEST_CASE("ContentHash: an exbibyte of nothing") {
  Workers workers(1);
  BlockHasher hasher(workers, [] {});
  ContentHash hash(1ull << 60, true, hasher);
  hash.add_skipped(1ull << 60);
  CHECK(hash.finish() == Disk({}, 1).found(false, 1));
}

// Block by block, it would take a minute.
TEST_CASE("ContentHash: a pebibyte of zeroes") {
  constexpr uint64_t kSize = 1ull << 50;
  auto found = [](bool has_backing) {
    Workers workers(1);
    BlockHasher hasher(workers, [] {});
    ContentHash hash(kSize, has_backing, hasher);
    for (uint64_t at = 0; at < kSize; at += ContentHash::kMostAtOnce) {
      hash.add_zeroes(ContentHash::kMostAtOnce);
    }
    return hash.finish();
  };
  auto repeated = [](const Bytes& digest, uint64_t times) {
    Bytes all;
    for (uint64_t i = 0; i < times; i++) append(all, digest);
    return hash_of(all);
  };
  Bytes group = repeated(hash_of(Bytes(kBlock)), 1024);
  CHECK(found(false) == hex(repeated(group, kSize / kBlock / 1024)));
  Bytes run;
  append_number(run, 0);
  append_number(run, kSize);
  run.push_back(1);
  CHECK(found(true) == hex(hash_of(hash_of(run))));
}
