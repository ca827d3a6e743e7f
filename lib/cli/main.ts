#!/usr/bin/env node
// The handlers of signals come before everything else.
import './install-signals.ts'
import { programArguments } from './arguments.ts'
import { endProcess } from './end.ts'
import { run } from './run.ts'
import { setEnd, wasInterrupted } from './signals.ts'

setEnd(endProcess)

// A failed write to stdout is seen by whoever awaits it. One to stderr is nobody's: a backup must
// not fail because the reader of its log went away.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

// A write beyond the limit of file sizes (ulimit -f) would end the program without a word; where the
// signal has a handler the write fails, with EFBIG.
process.on('SIGXFSZ', () => {})

run(programArguments).then((status) => {
  process.exitCode = status
  // Else no process.exit(): what was written to a pipe must still arrive there. After a signal nothing
  // waits for a reader that does not read, nor for a thread that hangs.
  if (wasInterrupted() && status !== 0) process.stderr.write('', () => endProcess(status))
})
