#include "support/no_threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <cerrno>

namespace qb::test {

namespace {

// Threads that this one may still start; negative: any number.
thread_local int left = -1;

}  // namespace

NoThreads::NoThreads(int can) {
  left = can;
}

NoThreads::~NoThreads() {
  left = -1;
}

}  // namespace qb::test

// Found by the linker before the C library's, or that of a sanitizer, which it calls.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (qb::test::left == 0) return EAGAIN;
  if (qb::test::left > 0) qb::test::left--;
  return create(thread, attributes, start, argument);
}
