// The system has no more threads to give.
#pragma once

namespace qb::test {

// While it lives, only so many more threads can be started by the calling thread.
class NoThreads {
 public:
  explicit NoThreads(int can = 0);
  ~NoThreads();
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;
};

}  // namespace qb::test
