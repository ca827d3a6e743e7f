import { BackupError, throwIfAborted } from '../errors.ts'
import { OVER_AND_OVER } from '../format/qcow2/work.ts'
import type { ImageFile } from '../format/read.ts'
import type { ControlOptions } from '../options.ts'
import { positions } from '../progress.ts'
import { Turns } from '../turns.ts'
import type { Say } from './finding.ts'

/** Result of a check and repair, by QEMU's names, in clusters; `imageEndOffset` is bytes. */
export interface CheckResult {
  /** Errors that endanger data. */
  corruptions: number
  corruptionsFixed: number
  /** Clusters that are in use for nothing. */
  leaks: number
  leaksFixed: number
  /** A read that failed. */
  checkErrors: number
  totalClusters: number
  allocatedClusters: number
  fragmentedClusters: number
  compressedClusters: number
  /** Where the last cluster that is in use ends. */
  imageEndOffset: number
}

/** Ends a check before it is done: the image is too damaged to be checked further. */
export class CheckFailed extends BackupError {
  /** @param qemu QEMU's message, if it has one */
  constructor(path: string, why: string, qemu?: string, cause?: unknown) {
    super('BAD_IMAGE', path, why, { qemu, cause })
  }
}

/** With which of C's errors QEMU ends a check. */
export const IO_ERROR = 'Input/output error'
export const INVALID = 'Invalid argument'
export const TOO_LARGE = 'File too large'

/** Maximum work for each byte of a file: tables that are read many times exceed it. */
const WORK_PER_BYTE = 128
const BASE_WORK = 2 ** 27
/** Cost of a message, and minimum cost of a table: reading it costs more than its bytes. */
const LINE_WORK = 2048
const MIN_TABLE_WORK = 8192

export function emptyResult(): CheckResult {
  return {
    corruptions: 0,
    corruptionsFixed: 0,
    leaks: 0,
    leaksFixed: 0,
    checkErrors: 0,
    totalClusters: 0,
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
    imageEndOffset: 0,
  }
}

/** Collects the findings of a check, and passes on its messages. */
export class Report {
  readonly result = emptyResult()
  /** Lines that were said. */
  lines = 0
  readonly #say: Say
  readonly #path: string
  readonly #mostWork: number
  readonly #signal: AbortSignal | undefined
  readonly #tell: ReturnType<typeof positions>
  readonly #size: number
  readonly #turns: Turns
  #work = 0

  constructor(
    say: Say,
    { path, size }: Pick<ImageFile, 'path' | 'size'>,
    { signal, onProgress }: ControlOptions = {},
  ) {
    this.#say = say
    this.#path = path
    this.#signal = signal
    this.#size = size
    this.#tell = positions('check', size, onProgress)
    this.#turns = new Turns(path, signal)
    this.#mostWork = Math.max(BASE_WORK, size * WORK_PER_BYTE)
  }

  /** @param cause why, if it is the failure of something else */
  say(text: string, cause?: BackupError): void {
    this.work(LINE_WORK)
    this.lines++
    this.#say({ kind: 'finding', text, cause })
  }

  /** Says why the check itself cannot do something. */
  message(text: string, cause?: BackupError): void {
    this.work(LINE_WORK)
    this.#say({ kind: 'message', text, cause })
  }

  /** Reports damage that does not stop the check. */
  corrupt(text: string): void {
    this.work(LINE_WORK)
    this.#say({ kind: 'corrupt', text })
  }

  /** The error that ends the check. */
  failed(why: string, qemu?: string, cause?: unknown): CheckFailed {
    return new CheckFailed(this.#path, why, qemu, cause)
  }

  corruption(line: string): void {
    this.say(line)
    this.result.corruptions++
  }

  /**
   * Counts bytes of tables that are read. A small file can name its tables any number of times.
   * @throws CheckFailed if that goes too far, BackupError ABORTED
   */
  work(bytes: number): void {
    throwIfAborted(this.#signal, this.#path)
    this.#tell?.(Math.min(this.#work, this.#size))
    this.#work += bytes
    if (this.#work > this.#mostWork) {
      throw this.failed(OVER_AND_OVER)
    }
  }

  /**
   * To be called for each step, and awaited if it returns a promise: see `Turns`. A table, which may
   * be large, takes several.
   */
  step(): Promise<void> | undefined {
    return this.#turns.step()
  }

  /** Counts a mapping table that is read. */
  table(bytes: number): void {
    this.work(Math.max(bytes, MIN_TABLE_WORK))
  }
}
