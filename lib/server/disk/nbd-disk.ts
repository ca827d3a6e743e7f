import { inOrderAhead } from '../../ahead.ts'
import { BackupError } from '../../errors.ts'
import { intersect } from '../../extents/intersect.ts'
import type { Range } from '../../extents/range-set.ts'
import { sameRuns, statusAnswers, ZERO_FLAG } from '../../nbd/block-status.ts'
import { NbdConnection } from '../../nbd/connection.ts'
import { openServer } from '../../nbd/export.ts'
import { roundDown, roundUp } from '../../units.ts'
import { NbdLines } from './nbd-lines.ts'
import type { DiskWriter, ServedDisk, ServedExtent } from './served-disk.ts'

/** How an export is served. */
export interface NbdDiskOptions {
  writable: boolean
  /** Zeroes may be holes. */
  sparse: boolean
  /** Tell what its dirty bitmap has: that of this name, or the only one that it exports. */
  dirty: boolean | string
}

const ALLOCATION = 'base:allocation'
/** QEMU's: in how many layers of the chain from the top a range lies; 0: in none. */
const DEPTH = 'qemu:allocation-depth'
const BITMAP = 'qemu:dirty-bitmap:'

const PIECE = 256 * 1024
/** Pieces that are read ahead. */
const AHEAD = 4
const ZEROES = Buffer.alloc(2 ** 20)
/** Extents of a batch. */
const BATCH = 4096

/**
 * Connects to an export.
 * @param uri as parseNbdUri takes it
 * @throws BackupError USAGE, IO, UNSUPPORTED; BAD_TARGET if it is read-only and is to be written
 */
export async function openNbdDisk(uri: string, options: NbdDiskOptions): Promise<ServedDisk> {
  const { dirty, writable } = options
  const stop = new AbortController()
  const server = await openServer(uri, { signal: stop.signal })
  const bitmap = dirty === false ? [] : [dirty === true ? BITMAP : `${BITMAP}${dirty}`]
  const connection = await NbdConnection.open(server, [ALLOCATION, DEPTH, ...bitmap])
  if (!writable || !connection.info.readOnly) return new NbdDisk(connection, options, stop)
  connection.close()
  throw new BackupError('BAD_TARGET', server.displayUri, 'is exported read-only')
}

/** An export of an NBD server. */
class NbdDisk implements ServedDisk {
  readonly size: number
  readonly hasDirty: boolean
  readonly unit: number
  readonly writer: DiskWriter | undefined
  readonly #lines: NbdLines
  readonly #stop: AbortController

  constructor(first: NbdConnection, options: NbdDiskOptions, stop: AbortController) {
    const { info } = first
    this.#stop = stop
    this.#lines = new NbdLines(first)
    this.size = info.size
    this.unit = info.blockMin
    this.hasDirty = info.contexts[2] ?? false
    if (options.writable) this.writer = writerOf(this.#lines, info, !options.sparse)
  }

  read(range: Range): AsyncIterable<Buffer> {
    return inOrderAhead(this.#reads(range), AHEAD)
  }

  async *extents(
    context: 'zero' | 'dirty',
    { start, length }: Range,
  ): AsyncGenerator<readonly ServedExtent[]> {
    const { first } = this.#lines
    const { info } = first
    const [hasAllocation, hasDepth] = info.contexts
    // Two answers of one request end where they like: what both say counts, and the rest is asked again.
    const at = info.contexts.map((_, i) => info.contexts.slice(0, i).filter(Boolean).length)
    const second = context === 'dirty' ? 2 : 1
    const hasSecond = context === 'dirty' ? this.hasDirty : hasDepth
    const end = start + length
    const from = roundDown(start, this.unit)
    const asked = { path: 'the NBD server', blockMin: this.unit }
    const ask = async (position: number, bytes: number) => {
      if (!info.contexts.some(Boolean)) return [sameRuns(bytes, 0)]
      const runs = await first.status(position, bytes)
      return runs.filter((_, i) => info.contexts[i])
    }
    for await (const window of statusAnswers(asked, ask, from, roundUp(end, this.unit))) {
      const whole = sameRuns(window.end - window.start, context === 'dirty' ? 0 : 1)
      const allocation = hasAllocation ? window.contexts[at[0]] : sameRuns(whole[0], 0)
      const other = hasSecond ? window.contexts[at[second]] : whole
      yield* extentsOf(window, allocation, other, context, { start, end })
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#lines.close()
  }

  *#reads({ start, length }: Range): Generator<() => Promise<Buffer>> {
    const end = start + length
    for (let at = start; at < end; ) {
      const from = at
      at = Math.min(end, roundDown(from, PIECE) + PIECE)
      const to = at
      yield () => this.#piece(from, to)
    }
  }

  async #piece(from: number, to: number): Promise<Buffer> {
    const start = roundDown(from, this.unit)
    const length = roundUp(to, this.unit) - start
    const bytes = await this.#lines.use((line) => line.read(start, length))
    return bytes.subarray(from - start, to - start)
  }
}

function* extentsOf(
  window: { start: number; end: number },
  allocation: Float64Array,
  other: Float64Array,
  context: 'zero' | 'dirty',
  within: { start: number; end: number },
): Generator<readonly ServedExtent[]> {
  let out: ServedExtent[] = []
  let position = window.start
  for (const { length, first, second } of intersect(allocation, other)) {
    const start = Math.max(position, within.start)
    const end = Math.min(position + length, window.end, within.end)
    position += length
    if (end <= start) continue
    const zero = (first & ZERO_FLAG) !== 0
    const isDirty = context === 'dirty'
    const hole = !isDirty && second === 0 && zero
    out.push({ start, length: end - start, zero, hole, dirty: isDirty && (second & 1) !== 0 })
    if (out.length < BATCH) continue
    yield out
    out = []
  }
  if (out.length > 0) yield out
}

function writerOf(lines: NbdLines, info: NbdConnection['info'], noHole: boolean): DiskWriter {
  return {
    write: (start, bytes) => lines.use((line) => line.write(start, bytes)),
    async zero(start, length) {
      if (info.canZero) return await lines.use((line) => line.zero(start, length, noHole))
      const end = start + length
      for (let at = start; at < end; at += ZEROES.length) {
        const bytes = ZEROES.subarray(0, Math.min(ZEROES.length, end - at))
        await lines.use((line) => line.write(at, bytes))
      }
    },
    async flush() {
      if (info.canFlush) await lines.use((line) => line.flush())
    },
  }
}
