import { isatty } from 'node:tty'
import type { CommandIo } from '../qemu-img/command.ts'
import { encodeText } from '../text.ts'
import { print, printBytes, STDOUT } from './print.ts'
import { interruptible, runningSignal } from './signals.ts'

/** A command's environment: its output streams, and the signal that may stop it. */
export interface Io extends CommandIo {
  readonly canDraw: boolean
  readonly columns: number
  /** Whether stdout is a terminal, for which bytes are not meant. */
  readonly stdoutIsTerminal: boolean
  /**
   * Writes bytes to stdout; resolves when they are taken.
   * @throws BackupError IO
   */
  writeBytes(bytes: Uint8Array): Promise<void>
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
  get stdoutIsTerminal() {
    return isatty(STDOUT)
  },
  writeBytes: printBytes,
  interruptible,
}
