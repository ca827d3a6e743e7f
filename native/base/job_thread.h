// Set-up of a thread that runs one job from start to end.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"

namespace qb {

// Names the calling thread (at most 15 bytes) and blocks all signals in it and in the threads that
// it starts: they are for the program's own threads. SIGXFSZ above all, which a write beyond the
// limit of file sizes sends to its thread and which ends the program; where it is blocked, the
// write just fails with EFBIG.
void begin_job_thread(const char* name);

// A thread that runs `body`. Throws Error when the system has none to give.
template <typename Body>
std::thread start_thread(Body body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    throw Error(error.code().value(), "starting a thread");
  }
}

}  // namespace qb
