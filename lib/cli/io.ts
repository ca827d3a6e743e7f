import type { CommandIo } from '../qemu-img/command.ts'
import { encodeText } from '../text.ts'
import { print } from './print.ts'
import { interruptible, runningSignal } from './signals.ts'

/** A command's environment: its output streams, and the signal that may stop it. */
export interface Io extends CommandIo {
  readonly canDraw: boolean
  readonly columns: number
  /** Runs work that a signal may stop, see interruptible of signals.ts. */
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

/** The process's own streams and signals. */
export const STANDARD: Io = {
  stdout: (text) => print(text, runningSignal()),
  stderr(text) {
    process.stderr.write(encodeText(text))
  },
  get canDraw() {
    return process.stderr.isTTY === true && process.env.TERM !== 'dumb'
  },
  get columns() {
    return process.stderr.columns || 80
  },
  interruptible,
}
