#include "copy/block_hasher.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

namespace qb {

namespace {

constexpr uint8_t kZeroes[1 << 16] = {};

// The numbers and the kind before a run.
struct RunMark {
  uint8_t bytes[17];

  RunMark(uint64_t start, uint64_t length, uint8_t kind) {
    uint64_t numbers[] = {start, length};
    memcpy(bytes, numbers, sizeof numbers);
    bytes[16] = kind;
  }
};

}  // namespace

void append_zeroes(Message& message, uint64_t length) {
  for (uint64_t left = length; left > 0;) {
    uint64_t part = std::min<uint64_t>(left, sizeof kZeroes);
    message.push_back({kZeroes, part});
    left -= part;
  }
}

void hash_blocks(std::span<HashBlock* const> blocks) {
  using Kind = HashBlock::Kind;
  std::vector<Message> messages(blocks.size());
  std::deque<RunMark> marks;
  for (size_t n = 0; n < blocks.size(); n++) {
    const std::vector<HashBlock::Piece>& pieces = blocks[n]->pieces;
    bool has_backing = blocks[n]->has_backing;
    Message& message = messages[n];
    uint64_t at = blocks[n]->start;
    for (size_t i = 0; i < pieces.size(); i++) {
      const HashBlock::Piece& piece = pieces[i];
      bool first = i == 0 || pieces[i - 1].kind != piece.kind;
      if (has_backing && first && piece.kind != Kind::kSkip) {
        uint64_t length = 0;
        for (size_t j = i; j < pieces.size() && pieces[j].kind == piece.kind; j++) {
          length += pieces[j].length;
        }
        marks.emplace_back(at, length, static_cast<uint8_t>(piece.kind));
        message.push_back(marks.back().bytes);
      }
      if (piece.kind == Kind::kData) message.push_back({piece.data, piece.length});
      if (piece.kind == Kind::kZero && !has_backing) append_zeroes(message, piece.length);
      at += piece.length;
    }
  }
  std::vector<Digest> digests(blocks.size());
  blake2b_all(messages, digests);
  for (size_t n = 0; n < blocks.size(); n++) blocks[n]->digest = digests[n];
}

void BlockHasher::add(HashBlock& block) {
  waiting_.push_back(&block);
  if (waiting_.size() >= kBlake2bLanes) start();
}

void BlockHasher::start() {
  if (waiting_.empty()) return;
  workers_.submit([this, blocks = std::exchange(waiting_, {})] {
    hash_blocks(blocks);
    for (HashBlock* block : blocks) {
      std::atomic<size_t>& busy = *block->busy;
      block->pieces.clear();
      // It may be gone from then on.
      block->done = true;
      busy--;
    }
    hashed_();
  });
}

}  // namespace qb
