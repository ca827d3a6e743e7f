import { OVER_AND_OVER } from '../../format/qcow2/work.ts'
import { QemuImgError } from '../messages.ts'

/** What a check found and mended, by QEMU's names; clusters are counted, `imageEndOffset` is bytes. */
export interface CheckResult {
  /** Errors that endanger data. */
  corruptions: number
  corruptionsFixed: number
  /** Clusters that are in use for nothing. */
  leaks: number
  leaksFixed: number
  /** What could not be looked at. */
  checkErrors: number
  totalClusters: number
  allocatedClusters: number
  fragmentedClusters: number
  compressedClusters: number
  /** Where the last cluster that is in use ends. */
  imageEndOffset: number
}

/** Ends a check before it is done; `why` as C's strerror has it. */
export class CheckFailed extends Error {
  readonly why: string

  constructor(why: string, options?: ErrorOptions) {
    super(why, options)
    this.why = why
  }
}

export const IO_ERROR = 'Input/output error'
export const INVALID = 'Invalid argument'
export const TOO_LARGE = 'File too large'

/** Work that is done for each byte of a file: tables that are looked at again and again end it. */
const WORK_PER_BYTE = 256
const LEAST_WORK = 2 ** 27
/** What a message counts as, and what a table does at least: reading it costs more than its bytes. */
const LINE_WORK = 2048
const LEAST_TABLE_WORK = 8192

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

/** Takes down what a check finds, and passes on what it says. */
export class Report {
  readonly result = emptyResult()
  /** Lines that were said. */
  lines = 0
  readonly #say: (text: string) => void
  readonly #mostWork: number
  #work = 0

  /**
   * @param say takes a line with its line feed
   * @param fileSize bytes
   */
  constructor(say: (text: string) => void, fileSize: number) {
    this.#say = say
    this.#mostWork = Math.max(LEAST_WORK, fileSize * WORK_PER_BYTE)
  }

  say(line: string): void {
    this.work(LINE_WORK)
    this.lines++
    this.#say(`${line}\n`)
  }

  corruption(line: string): void {
    this.say(line)
    this.result.corruptions++
  }

  /**
   * Counts bytes of tables that are looked at. A small file can name its tables any number of times.
   * @throws QemuImgError if that goes too far
   */
  work(bytes: number): void {
    this.#work += bytes
    if (this.#work > this.#mostWork) {
      throw new QemuImgError(`Check failed: ${OVER_AND_OVER}`)
    }
  }

  /** Counts a mapping table that is read. */
  table(bytes: number): void {
    this.work(Math.max(bytes, LEAST_TABLE_WORK))
  }
}
