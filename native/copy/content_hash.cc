#include "copy/content_hash.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"

namespace qb {

namespace {

constexpr uint64_t kBlock = 4 << 20;

// Blocks of zeroes over a backing file cost next to nothing, and thousands of them may be given
// while a thread works on one of data.
constexpr size_t kMaxBlocks = 4096;

void update_zeroes(blake2b_state& state, uint64_t length) {
  static constexpr uint8_t kZeroes[1 << 16] = {};
  for (uint64_t left = length; left > 0;) {
    uint64_t part = std::min<uint64_t>(left, sizeof kZeroes);
    blake2b_update(&state, kZeroes, part);
    left -= part;
  }
}

void update_run(blake2b_state& state, uint64_t start, uint64_t length, uint8_t kind) {
  uint64_t numbers[] = {start, length};
  blake2b_update(&state, reinterpret_cast<const uint8_t*>(numbers), sizeof numbers);
  blake2b_update(&state, &kind, 1);
}

}  // namespace

// Takes 7 ms, which is more than the rest of a small image, so it is computed once in a process.
// That also lets the library choose its code for this machine before threads use it.
const ContentHash::Digest& ContentHash::zero_block() {
  static const Digest kDigest = [] {
    Digest digest;
    blake2b_state state;
    blake2b_init(&state, digest.size());
    update_zeroes(state, kBlock);
    blake2b_final(&state, digest.data(), digest.size());
    return digest;
  }();
  return kDigest;
}

ContentHash::ContentHash(uint64_t size, bool has_backing, Workers& workers,
                         std::function<void()> hashed)
    : size_(size), has_backing_(has_backing), workers_(workers), hashed_(std::move(hashed)) {
  blake2b_init(&total_, zero_block_.size());
}

void ContentHash::add_data(const uint8_t* data, uint64_t length, const BufferRef& owner) {
  add(Kind::kData, length, data, owner);
}

void ContentHash::add_zeroes(uint64_t length) {
  add(Kind::kZero, length, nullptr, nullptr);
}

void ContentHash::add_skipped(uint64_t length) {
  add(has_backing_ ? Kind::kSkip : Kind::kZero, length, nullptr, nullptr);
}

void ContentHash::add(Kind kind, uint64_t length, const uint8_t* data, const BufferRef& owner) {
  for (uint64_t left = std::min(length, size_ - position_); left > 0;) {
    if (!open_) {
      uint64_t taken = add_blocks(kind, left);
      left -= taken;
      position_ += taken;
      if (left == 0) break;
      open_ = std::make_unique<Block>();
      open_->start = position_;
    }
    uint64_t end = std::min(open_->start + kBlock, size_);
    uint64_t part = std::min(left, end - position_);
    open_->pieces.push_back({kind, part, data, owner});
    if (data) data += part;
    left -= part;
    position_ += part;
    if (position_ == end) close_block();
  }
}

// The whole blocks at the start of a run, where they need not be handled one by one. Returns
// their bytes.
uint64_t ContentHash::add_blocks(Kind kind, uint64_t length) {
  uint64_t count = length / kBlock;
  if (count == 0 || kind == Kind::kData || (kind == Kind::kZero && has_backing_)) return 0;
  if (kind == Kind::kZero) add_zero_blocks(count);
  return count * kBlock;
}

void ContentHash::add_zero_blocks(uint64_t count) {
  if (blocks_.empty() || !blocks_.back()->done || blocks_.back()->digest != zero_block_) {
    auto block = std::make_unique<Block>();
    block->digest = zero_block_;
    block->count = 0;
    block->done = true;
    blocks_.push_back(std::move(block));
  }
  blocks_.back()->count += count;
  fold();
}

void ContentHash::close_block() {
  std::unique_ptr<Block> closed = std::exchange(open_, nullptr);
  Block& block = *closed;
  auto has = [&block](Kind kind) {
    return std::any_of(block.pieces.begin(), block.pieces.end(),
                       [kind](const Piece& piece) { return piece.kind == kind; });
  };
  bool has_data = has(Kind::kData);
  if (!has_data && !has(Kind::kZero)) return;
  if (!has_data && !has_backing_ && position_ - block.start == kBlock) {
    add_zero_blocks(1);
    return;
  }
  blocks_.push_back(std::move(closed));
  if (!has_data) {
    compute(block);
    block.done = true;
  } else {
    busy_++;
    workers_.submit([this, &block] {
      compute(block);
      block.pieces.clear();
      block.done = true;
      busy_--;
      hashed_();
    });
  }
  fold();
}

void ContentHash::compute(Block& block) const {
  blake2b_state state;
  blake2b_init(&state, block.digest.size());
  uint64_t at = block.start;
  for (size_t i = 0; i < block.pieces.size(); i++) {
    const Piece& piece = block.pieces[i];
    bool first = i == 0 || block.pieces[i - 1].kind != piece.kind;
    if (has_backing_ && first && piece.kind != Kind::kSkip) {
      uint64_t length = 0;
      for (size_t j = i; j < block.pieces.size() && block.pieces[j].kind == piece.kind; j++) {
        length += block.pieces[j].length;
      }
      update_run(state, at, length, static_cast<uint8_t>(piece.kind));
    }
    if (piece.kind == Kind::kData) blake2b_update(&state, piece.data, piece.length);
    if (piece.kind == Kind::kZero && !has_backing_) update_zeroes(state, piece.length);
    at += piece.length;
  }
  blake2b_final(&state, block.digest.data(), block.digest.size());
}

// Takes finished blocks, in order.
void ContentHash::fold() {
  while (!blocks_.empty() && blocks_.front()->done) {
    const Block& block = *blocks_.front();
    for (uint64_t i = 0; i < block.count; i++) {
      blake2b_update(&total_, block.digest.data(), block.digest.size());
    }
    blocks_.pop_front();
  }
}

bool ContentHash::behind() {
  fold();
  return blocks_.size() >= kMaxBlocks;
}

std::string ContentHash::finish() {
  fold();
  Digest digest;
  blake2b_final(&total_, digest.data(), digest.size());
  std::string text;
  for (uint8_t byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace qb
