#include "base/job_thread.h"

#include <pthread.h>
#include <signal.h>

namespace qb {

void begin_job_thread(const char* name) {
  pthread_setname_np(pthread_self(), name);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace qb
