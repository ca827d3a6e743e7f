#!/usr/bin/env node
// The handlers of signals come before everything else.
import './install-signals.ts'
import { isNativeLoaded } from '../native.ts'
import { programArguments } from './arguments.ts'
import { endProcess } from './end.ts'
import { run } from './run.ts'
import { setEnd, wasInterrupted } from './signals.ts'

setEnd(endProcess)

// A failed write to stdout is reported to its caller. One to stderr is ignored: a backup must
// not fail because the reader of its log went away.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

// A write beyond the limit of file sizes (ulimit -f) would end the program without a word; where the
// signal has a handler the write fails, with EFBIG.
process.on('SIGXFSZ', () => {})

let isOver = false
run(programArguments).then((status) => {
  isOver = true
  process.exitCode = status
  // Else no process.exit(): output written to a pipe must still arrive there. After a signal nothing
  // waits for a reader that does not read, nor for a thread that hangs.
  if (wasInterrupted() && status !== 0) process.stderr.write('', () => endProcess(status))
})

// Nothing is left to wait for. Node's own way out takes the handlers of signals away before the process
// is gone: a signal in between would end a run that is done with another status than its own.
process.once('beforeExit', () => {
  if (!isOver) {
    process.stderr.write('qcow2-backup: internal error: the run ended without a result\n')
    process.exitCode = 1
  }
  if (isNativeLoaded()) endProcess(Number(process.exitCode ?? 0))
})
