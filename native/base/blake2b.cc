#include "base/blake2b.h"

#include <blake2.h>

#include <algorithm>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qb {

namespace {

// Bytes of a message that are taken in at a time.
constexpr size_t kTakenAtOnce = 128;

// RFC 7693, section 2.6.
constexpr uint64_t kInitial[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
// The parameters: no key, one message by itself, and the bytes of the digest.
constexpr uint64_t kParameters = 0x01010000 | sizeof(Digest);

// Where the hash of a message is.
class MessageLane {
 public:
  MessageLane(const Message& message, Digest& digest) : message_(message), digest_(digest) {
    for (const auto& piece : message) left_ += piece.size();
    std::copy(std::begin(kInitial), std::end(kInitial), state.begin());
    state[0] ^= kParameters;
  }

  // Blocks that are not the last one, which is taken in in another way.
  uint64_t blocks() const { return left_ == 0 ? 0 : (left_ - 1) / kTakenAtOnce; }
  // The next block. Valid until the next call.
  const uint8_t* next() {
    skip_empty();
    done_ += kTakenAtOnce;
    left_ -= kTakenAtOnce;
    const auto& piece = message_[piece_];
    if (piece.size() - offset_ >= kTakenAtOnce) {
      offset_ += kTakenAtOnce;
      return piece.data() + offset_ - kTakenAtOnce;
    }
    for (size_t filled = 0; filled < kTakenAtOnce;) {
      skip_empty();
      const auto& from = message_[piece_];
      size_t part = std::min(kTakenAtOnce - filled, from.size() - offset_);
      memcpy(gathered_ + filled, from.data() + offset_, part);
      filled += part;
      offset_ += part;
    }
    return gathered_;
  }
  // Takes in all that is left.
  void finish() {
    blake2b_state rest;
    blake2b_init(&rest, digest_.size());
    std::copy(state.begin(), state.end(), rest.h);
    rest.t[0] = done_;
    for (; piece_ < message_.size(); piece_++, offset_ = 0) {
      const auto& piece = message_[piece_];
      blake2b_update(&rest, piece.data() + offset_, piece.size() - offset_);
    }
    blake2b_final(&rest, digest_.data(), digest_.size());
  }
  uint64_t done() const { return done_; }

  std::array<uint64_t, 8> state;

 private:
  void skip_empty() {
    while (offset_ == message_[piece_].size()) {
      piece_++;
      offset_ = 0;
    }
  }

  const Message& message_;
  Digest& digest_;
  uint64_t left_ = 0;  // bytes
  uint64_t done_ = 0;
  size_t piece_ = 0;
  size_t offset_ = 0;  // in the piece
  uint8_t gathered_[kTakenAtOnce];
};

#if defined(__x86_64__)

#define QB_AVX2 __attribute__((target("avx2")))

// A word of each of four lanes.
using Words = __m256i;

constexpr uint8_t kOrder[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};

// The rotations to the right, of whole bytes by a shuffle of those of each word.
template <int bytes>
QB_AVX2 inline Words rotate(Words words) {
  constexpr auto at = [](int i) { return static_cast<char>(i / 8 * 8 + (i + bytes) % 8); };
  const Words order = _mm256_setr_epi8(
      at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12),
      at(13), at(14), at(15), at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9),
      at(10), at(11), at(12), at(13), at(14), at(15));
  return _mm256_shuffle_epi8(words, order);
}

QB_AVX2 inline void mix_words(Words& a, Words& b, Words& c, Words& d, Words x, Words y) {
  a = _mm256_add_epi64(_mm256_add_epi64(a, b), x);
  d = rotate<4>(_mm256_xor_si256(d, a));
  c = _mm256_add_epi64(c, d);
  b = rotate<3>(_mm256_xor_si256(b, c));
  a = _mm256_add_epi64(_mm256_add_epi64(a, b), y);
  d = rotate<2>(_mm256_xor_si256(d, a));
  c = _mm256_add_epi64(c, d);
  b = _mm256_xor_si256(b, c);
  // By 63 bits.
  b = _mm256_xor_si256(_mm256_srli_epi64(b, 63), _mm256_add_epi64(b, b));
}

// Four words of each lane, turned into four of all.
QB_AVX2 inline void load_words(Words out[4], const uint8_t* const at[4], size_t offset) {
  Words lane[4];
  for (int i = 0; i < 4; i++) {
    lane[i] = _mm256_loadu_si256(reinterpret_cast<const Words*>(at[i] + offset));
  }
  Words even01 = _mm256_unpacklo_epi64(lane[0], lane[1]);
  Words odd01 = _mm256_unpackhi_epi64(lane[0], lane[1]);
  Words even23 = _mm256_unpacklo_epi64(lane[2], lane[3]);
  Words odd23 = _mm256_unpackhi_epi64(lane[2], lane[3]);
  out[0] = _mm256_permute2x128_si256(even01, even23, 0x20);
  out[1] = _mm256_permute2x128_si256(odd01, odd23, 0x20);
  out[2] = _mm256_permute2x128_si256(even01, even23, 0x31);
  out[3] = _mm256_permute2x128_si256(odd01, odd23, 0x31);
}

// RFC 7693, section 3.2, for a block that is not the last one. `done`: bytes with this block.
QB_AVX2 void compress(Words h[8], const uint8_t* const at[4], uint64_t done) {
  Words m[16];
  for (size_t i = 0; i < 4; i++) load_words(m + 4 * i, at, 32 * i);
  Words v[16];
  for (int i = 0; i < 8; i++) {
    v[i] = h[i];
    v[i + 8] = _mm256_set1_epi64x(static_cast<int64_t>(kInitial[i]));
  }
  v[12] = _mm256_xor_si256(v[12], _mm256_set1_epi64x(static_cast<int64_t>(done)));
  for (const auto& s : kOrder) {
    mix_words(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
    mix_words(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
    mix_words(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
    mix_words(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
    mix_words(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
    mix_words(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
    mix_words(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
    mix_words(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; i++) h[i] = _mm256_xor_si256(h[i], _mm256_xor_si256(v[i], v[i + 8]));
}

// Takes in the next blocks of all lanes, which have got equally far. Where there are fewer than
// four the last one is there several times, and the first result of it counts.
QB_AVX2 void take_in(std::span<MessageLane*> lanes, uint64_t blocks) {
  alignas(32) uint64_t words[8][4];
  for (size_t i = 0; i < 4; i++) {
    const MessageLane& lane = *lanes[std::min(i, lanes.size() - 1)];
    for (size_t word = 0; word < 8; word++) words[word][i] = lane.state[word];
  }
  Words h[8];
  for (int word = 0; word < 8; word++) {
    h[word] = _mm256_load_si256(reinterpret_cast<const Words*>(words[word]));
  }
  for (; blocks > 0; blocks--) {
    const uint8_t* at[4];
    for (size_t i = 0; i < 4; i++) at[i] = i < lanes.size() ? lanes[i]->next() : at[i - 1];
    compress(h, at, lanes.front()->done());
  }
  for (int word = 0; word < 8; word++) {
    _mm256_store_si256(reinterpret_cast<Words*>(words[word]), h[word]);
  }
  for (size_t i = 0; i < lanes.size(); i++) {
    for (size_t word = 0; word < 8; word++) lanes[i]->state[word] = words[word][i];
  }
}

void take_in_together(std::span<MessageLane> all) {
  static const bool is_possible = __builtin_cpu_supports("avx2");
  if (!is_possible) return;
  std::vector<MessageLane*> lanes;
  for (MessageLane& lane : all) lanes.push_back(&lane);
  // The shortest drop out, until one by itself is as fast.
  while (lanes.size() > 1) {
    uint64_t blocks = lanes.front()->blocks();
    for (MessageLane* lane : lanes) blocks = std::min(blocks, lane->blocks());
    take_in(lanes, blocks);
    std::erase_if(lanes, [](MessageLane* lane) { return lane->blocks() == 0; });
  }
}

#else

void take_in_together(std::span<MessageLane>) {}

#endif

}  // namespace

void blake2b_all(std::span<const Message> messages, std::span<Digest> digests) {
  for (size_t first = 0; first < messages.size(); first += kBlake2bLanes) {
    size_t end = std::min(first + kBlake2bLanes, messages.size());
    std::vector<MessageLane> lanes;
    lanes.reserve(end - first);
    for (size_t i = first; i < end; i++) lanes.emplace_back(messages[i], digests[i]);
    take_in_together(lanes);
    for (MessageLane& lane : lanes) lane.finish();
  }
}

}  // namespace qb
