// The hash of the content of a copy, with which the target can be compared later. BLAKE2b with
// 32 bytes, of blocks, so that several threads can do it and zeroes cost nothing:
//
//   H(H(block 0), H(block 1), …)
//
// with blocks of 4 MiB, of which the last may be shorter: imageio's /checksum of the
// same disk by default. Over a backing file only the ranges stored in the image count:
// blocks without any are left out, and in the others each longest run that is stored as
// data or as zero is hashed as its start and length in guest bytes (u64, little endian), its kind
// (u8, 1: zero, 2: data), and its bytes if they are data.
//
// An image of some KiB may have a disk of any size. So that nothing of a disk of more than 8 TiB
// costs nothing either, the hashes of its blocks are hashed in groups of 1024, and then those of
// the groups; over a backing file neighbouring blocks that are stored as zero, each as a whole,
// count as one block.
#pragma once

#include <blake2.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/blake2b.h"
#include "base/buffer.h"
#include "copy/block_hasher.h"

namespace qb {

// Takes a disk in guest order, as a DiskWriter does. Not thread-safe. The workers of the hasher
// must end first.
class ContentHash {
 public:
  // Bytes: the largest add_skipped() and add_zeroes() that takes no noticeable time.
  static constexpr uint64_t kMostAtOnce = 1ull << 40;

  // From when on, and how, the hashes of blocks are put together before they are part of the whole.
  struct Large {
    uint64_t above = 1ull << 43;  // bytes of the disk
    uint64_t group = 1024;        // blocks
  };

  // `size`: of the disk, bytes. `has_backing`: what is skipped is not part of it; else it reads as
  // zero. `large`: for tests.
  ContentHash(uint64_t size, bool has_backing, BlockHasher& hasher, Large large);
  ContentHash(uint64_t size, bool has_backing, BlockHasher& hasher)
      : ContentHash(size, has_backing, hasher, Large()) {}

  // Bytes past the end of the disk are left out. `owner` keeps the bytes alive, unchanged.
  void add_data(const uint8_t* data, uint64_t length, const BufferRef& owner);
  void add_zeroes(uint64_t length);
  void add_skipped(uint64_t length);

  // True when so many blocks wait for one that is not done that no more should be given.
  bool behind();
  // True while memory is held by blocks that the hasher has.
  bool busy() const { return busy_ > 0; }
  // In hexadecimal. REQUIRES: the whole disk was given, !busy().
  std::string finish();

 private:
  using Kind = HashBlock::Kind;

  static const Digest& zero_block();
  void add(Kind kind, uint64_t length, const uint8_t* data, const BufferRef& owner);
  uint64_t add_blocks(Kind kind, uint64_t length);
  void close_block();
  void add_zero_blocks(uint64_t start, uint64_t count);
  void fold();
  void take(const Digest& digest);
  void take_zeroes(uint64_t start, uint64_t count);
  void end_zero_run();
  void end_group();

  uint64_t size_;
  bool has_backing_;
  bool large_;
  uint64_t group_size_;  // blocks
  BlockHasher& hasher_;
  const Digest& zero_block_ = zero_block();
  Digest zero_group_;
  uint64_t position_ = 0;                          // guest, bytes
  std::unique_ptr<HashBlock> open_;                // the one that position_ is in
  std::deque<std::unique_ptr<HashBlock>> blocks_;  // closed, not yet part of total_: see behind()
  std::atomic<size_t> busy_ = 0;
  // Of a large disk: the group that was begun, or the zeroes that may go on.
  blake2b_state group_;
  uint64_t in_group_ = 0;  // blocks
  uint64_t zero_start_ = 0;
  uint64_t zero_end_ = 0;
  blake2b_state total_;
};

}  // namespace qb
