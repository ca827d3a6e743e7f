#include "copy/content_hash.h"

#include <algorithm>
#include <utility>

namespace qb {

namespace {

constexpr uint64_t kBlock = 4 << 20;

// Blocks of zeroes over a backing file cost next to nothing, and thousands of them may be given
// while a thread works on one of data.
constexpr size_t kMaxBlocks = 4096;

Digest hash_of(const Message& message) {
  Digest digest;
  blake2b_all({&message, 1}, {&digest, 1});
  return digest;
}

Digest hash_of_zero_run(uint64_t start, uint64_t length) {
  HashBlock block{.start = start, .has_backing = true};
  block.pieces.push_back({HashBlock::Kind::kZero, length});
  HashBlock* only = &block;
  hash_blocks({&only, 1});
  return block.digest;
}

}  // namespace

// Takes 7 ms, which is more than the rest of a small image, so it is computed once in a process.
// That also lets the library choose its code for this machine before threads use it.
const Digest& ContentHash::zero_block() {
  static const Digest kDigest = [] {
    Message zeroes;
    append_zeroes(zeroes, kBlock);
    return hash_of(zeroes);
  }();
  return kDigest;
}

ContentHash::ContentHash(uint64_t size, bool has_backing, BlockHasher& hasher, Large large)
    : size_(size),
      has_backing_(has_backing),
      large_(size > large.above),
      group_size_(large.group),
      hasher_(hasher) {
  if (large_) zero_group_ = hash_of(Message(group_size_, zero_block_));
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
      open_ = std::make_unique<HashBlock>();
      open_->start = position_;
      open_->has_backing = has_backing_;
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
  if (count == 0 || kind == Kind::kData) return 0;
  if (kind == Kind::kZero) add_zero_blocks(position_, count);
  return count * kBlock;
}

void ContentHash::add_zero_blocks(uint64_t start, uint64_t count) {
  HashBlock* last = blocks_.empty() ? nullptr : blocks_.back().get();
  if (!last || last->zeroes == 0 || last->start + last->zeroes * kBlock != start) {
    blocks_.push_back(std::make_unique<HashBlock>());
    last = blocks_.back().get();
    last->start = start;
    last->done = true;
  }
  last->zeroes += count;
  fold();
}

void ContentHash::close_block() {
  std::unique_ptr<HashBlock> closed = std::exchange(open_, nullptr);
  HashBlock& block = *closed;
  auto has = [&block](Kind kind) {
    return std::any_of(block.pieces.begin(), block.pieces.end(),
                       [kind](const HashBlock::Piece& piece) { return piece.kind == kind; });
  };
  bool has_data = has(Kind::kData);
  if (!has_data && !has(Kind::kZero)) return;
  if (!has_data && !has(Kind::kSkip) && position_ - block.start == kBlock) {
    add_zero_blocks(block.start, 1);
    return;
  }
  blocks_.push_back(std::move(closed));
  if (!has_data) {
    HashBlock* only = &block;
    hash_blocks({&only, 1});
    block.done = true;
  } else {
    busy_++;
    block.busy = &busy_;
    hasher_.add(block);
  }
  fold();
}

// Takes finished blocks, in order.
void ContentHash::fold() {
  while (!blocks_.empty() && blocks_.front()->done) {
    const HashBlock& block = *blocks_.front();
    if (block.zeroes > 0) {
      take_zeroes(block.start, block.zeroes);
    } else {
      take(block.digest);
    }
    blocks_.pop_front();
  }
}

void ContentHash::take(const Digest& digest) {
  end_zero_run();
  bool grouped = large_ && !has_backing_;
  if (grouped && in_group_ == 0) blake2b_init(&group_, digest.size());
  blake2b_update(grouped ? &group_ : &total_, digest.data(), digest.size());
  if (grouped && ++in_group_ == group_size_) end_group();
}

void ContentHash::take_zeroes(uint64_t start, uint64_t count) {
  if (has_backing_ && large_) {
    if (zero_end_ != start) end_zero_run();
    if (zero_start_ == zero_end_) zero_start_ = start;
    zero_end_ = start + count * kBlock;
    return;
  }
  for (uint64_t left = count; left > 0;) {
    if (large_ && in_group_ == 0 && left >= group_size_) {
      blake2b_update(&total_, zero_group_.data(), zero_group_.size());
      left -= group_size_;
    } else if (has_backing_) {
      take(hash_of_zero_run(start + (count - left) * kBlock, kBlock));
      left--;
    } else {
      take(zero_block_);
      left--;
    }
  }
}

void ContentHash::end_zero_run() {
  if (zero_start_ == zero_end_) return;
  Digest digest = hash_of_zero_run(zero_start_, zero_end_ - zero_start_);
  zero_start_ = zero_end_;
  blake2b_update(&total_, digest.data(), digest.size());
}

void ContentHash::end_group() {
  Digest digest;
  blake2b_final(&group_, digest.data(), digest.size());
  blake2b_update(&total_, digest.data(), digest.size());
  in_group_ = 0;
}

bool ContentHash::behind() {
  fold();
  return blocks_.size() >= kMaxBlocks;
}

std::string ContentHash::finish() {
  fold();
  end_zero_run();
  if (in_group_ > 0) end_group();
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
