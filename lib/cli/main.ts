#!/usr/bin/env node
import { programArguments } from './arguments.ts'
import { run } from './run.ts'

// A failed write to stdout is seen by whoever awaits it. One to stderr is nobody's: a backup must
// not fail because the reader of its log went away.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

// A write beyond the limit of file sizes (ulimit -f) would end the program without a word; where the
// signal has a handler the write fails, with EFBIG.
process.on('SIGXFSZ', () => {})

// Not process.exit(): what was written to a pipe must still arrive there.
run(programArguments).then((status) => {
  process.exitCode = status
})
