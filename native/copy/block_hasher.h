// The blocks of content hashes, and the threads that hash them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "base/blake2b.h"
#include "base/buffer.h"
#include "base/workers.h"

namespace qb {

// What is hashed at a time, see content_hash.h.
struct HashBlock {
  enum class Kind : uint8_t { kSkip = 0, kZero = 1, kData = 2 };
  struct Piece {
    Kind kind;
    uint64_t length;
    const uint8_t* data = nullptr;
    BufferRef owner;
  };

  uint64_t start = 0;        // guest, bytes
  bool has_backing = false;  // runs of pieces count with their place and kind
  std::vector<Piece> pieces;
  std::atomic<size_t>* busy = nullptr;  // counts it down when it is done
  Digest digest;
  uint64_t zeroes = 0;  // instead, that many whole blocks of zeroes
  std::atomic<bool> done = false;
};

// Appends zeroes to a message.
void append_zeroes(Message& message, uint64_t length);

// Computes the digests of blocks.
void hash_blocks(std::span<HashBlock* const> blocks);

// Has threads hash the blocks of one or several hashes: a thread takes several at the same time in
// less than it takes for two. Not thread-safe. `workers` must end first.
class BlockHasher {
 public:
  // `hashed`: called on any thread when a block was done.
  BlockHasher(Workers& workers, std::function<void()> hashed)
      : workers_(workers), hashed_(std::move(hashed)) {}

  // The block is done some time after so many were added that a thread is busy, or start().
  void add(HashBlock& block);
  // Those that wait for others to come, too.
  void start();

 private:
  Workers& workers_;
  std::function<void()> hashed_;
  std::vector<HashBlock*> waiting_;
};

}  // namespace qb
