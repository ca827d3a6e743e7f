// What a thread of ours that does a job from its start to its end does first.
#pragma once

namespace qb {

// Names the calling thread (at most 15 bytes) and blocks all signals in it and in the threads that
// it starts: they are for the program's own threads. SIGXFSZ above all, which a write beyond the
// limit of file sizes sends to its thread and which ends the program; where it is blocked, the
// write just fails with EFBIG.
void begin_job_thread(const char* name);

}  // namespace qb
