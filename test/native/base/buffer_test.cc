#include "base/buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/is_zero.h"

using namespace qb;

TEST_CASE("BufferPool: at least what was asked for, at a page's address") {
  BufferPool pool;
  for (size_t size : {size_t{0}, size_t{1}, kPage - 1, kPage, kPage + 1, 2 * kPage, 2 * kPage + 1,
                      size_t{65536}, size_t{1} << 21, (size_t{1} << 21) + 512}) {
    CAPTURE(size);
    BufferRef buffer = pool.get(size);
    CHECK(buffer->size() >= std::max(size, kPage));
    CHECK(buffer->size() < std::max(2 * size, kPage + 1));
    CHECK(reinterpret_cast<uintptr_t>(buffer->data()) % kPage == 0);
    std::fill_n(buffer->data(), buffer->size(), uint8_t{0xa5});
  }
}

TEST_CASE("BufferPool: what was given back is handed out again, and counted once") {
  BufferPool pool;
  BufferRef first = pool.get(10000);
  BufferRef shared = first;
  CHECK(pool.in_use() == 16384);
  uint8_t* address = first->data();
  first.reset();
  CHECK(pool.in_use() == 16384);
  shared.reset();
  CHECK(pool.in_use() == 0);

  BufferRef other_class = pool.get(20000);
  CHECK(other_class->data() != address);
  BufferRef again = pool.get(16384);
  CHECK(again->data() == address);
  BufferRef another = pool.get(16384);
  CHECK(another->data() != address);
  CHECK(pool.in_use() == 3 * 16384 + 16384);
}

TEST_CASE("BufferPool: get_zeroed() does not show what the memory held before") {
  BufferPool pool;
  BufferRef used = pool.get(kPage);
  uint8_t* address = used->data();
  std::fill_n(address, kPage, uint8_t{0xff});
  used.reset();
  BufferRef zeroed = pool.get_zeroed(kPage);
  CHECK(zeroed->data() == address);
  CHECK(is_zero(zeroed->data(), kPage));
}

TEST_CASE("BufferPool: takes back more than it keeps") {
  BufferPool pool;
  std::vector<BufferRef> held;
  for (int i = 0; i < 20; i++) held.push_back(pool.get(2 << 20));
  CHECK(pool.in_use() == 40 << 20);
  held.clear();
  CHECK(pool.in_use() == 0);
  for (int i = 0; i < 20; i++) held.push_back(pool.get(2 << 20));
  CHECK(pool.in_use() == 40 << 20);
}

TEST_CASE("BufferPool: keeps what was used last, also when it is full of other sizes") {
  BufferPool pool(4 << 20);
  std::vector<BufferRef> small;
  for (int i = 0; i < 1024; i++) small.push_back(pool.get(kPage));
  small.clear();
  BufferRef large = pool.get(2 << 20);
  uint8_t* address = large->data();
  memset(address, 1, 2 << 20);
  large.reset();
  // Not anew, or it would be zero.
  large = pool.get(2 << 20);
  CHECK(large->data() == address);
  CHECK(large->data()[0] == 1);
  CHECK(pool.in_use() == 2 << 20);
}

TEST_CASE("BufferPool: does not keep a buffer larger than all that it may keep") {
  BufferPool pool(1 << 20);
  BufferRef small = pool.get(kPage);
  uint8_t* address = small->data();
  small.reset();
  pool.get(2 << 20).reset();
  CHECK(pool.get(kPage)->data() == address);
}

TEST_CASE("BufferPool: from several threads") {
  BufferPool pool;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&pool, t] {
      for (unsigned i = 0; i < 500; i++) {
        BufferRef buffer = pool.get((i * 37 + t) % 30000);
        buffer->data()[0] = static_cast<uint8_t>(t);
        std::this_thread::yield();
        if (buffer->data()[0] != t) throw std::logic_error("a buffer of two owners");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(pool.in_use() == 0);
}
