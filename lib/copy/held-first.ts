import { ioError } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import type { CopyJob } from '../native.ts'
import type { PlanAhead } from '../plan/ahead.ts'
import type { CleanRange } from '../plan/align.ts'
import { OVERLAY } from '../plan/policy.ts'
import { packRows } from '../plan/rows.ts'
import type { Disk, Mapping, SourceStore } from '../source/source.ts'
import { roundDown } from '../units.ts'
import type { DiscardAfterCopy } from './discard.ts'
import type { HeldRanges } from './held-ranges.ts'
import { runCopy } from './run-copy.ts'
import type { JobOptions } from './spec.ts'
import type { Stash } from './stash.ts'

/** How much is copied first at a time. */
export interface RoundLimits {
  /** Less is not worth a round: bytes. */
  min: number
  /** The copy in turn waits meanwhile: bytes. */
  max: number
  /** Between two questions what is held, at least. */
  pauseMs: number
}

const LIMITS: RoundLimits = { min: 4 * 2 ** 20, max: 256 * 2 ** 20, pauseMs: 100 }
/** Of a round: as many ranges may be made of it. */
const MAX_GRANULES = 4096
/** How much longer than a question what is held takes the pause is. */
const PAUSE_FACTOR = 10
/** A round takes a part of what one copy needs alone, of memory and of the server's connections. */
const MEMORY = 16 * 2 ** 20
const MAX_CONNECTIONS = 2
/** Of zero detection in the stash, bytes: granules may be large. */
const MAX_UNIT = 65536

/**
 * Copies first what the image that keeps the point in time holds: the guest has overwritten it, mostly
 * ahead of the copy, and it takes room there until it is copied and discarded. Out of turn it goes into a
 * stash, from which the copy reads it in its turn: the target has everything in guest order.
 *
 * What fails here does not fail the backup, which then goes on in turn: only what is durable in the stash is
 * discarded at the source.
 */
export class HeldFirst {
  /** The source with the stash as a store of its own. */
  readonly disk: Pick<Disk, 'name' | 'size' | 'stores' | 'interrupt'>
  readonly #source: Disk
  readonly #held: HeldRanges
  readonly #stash: Stash
  readonly #discarding: DiscardAfterCopy
  readonly #options: JobOptions
  readonly #limits: RoundLimits
  readonly #interrupted = new AbortController()
  #next = 0
  #failure: unknown
  #bytes = 0
  #rounds = 0
  /** Guest bytes from 0 on that the stash need not keep. */
  #passed = 0
  /** Where the last range in the stash ends. */
  #stashed = 0

  /**
   * @param source of one store, as everything that can discard is
   * @param stash of its size
   * @param options of the copy
   * @param limits for tests
   */
  constructor(
    source: Disk,
    held: HeldRanges,
    stash: Stash,
    discarding: DiscardAfterCopy,
    options: JobOptions,
    limits = LIMITS,
  ) {
    this.#source = source
    this.#held = held
    this.#stash = stash
    this.#discarding = discarding
    this.#options = options
    this.#limits = limits
    const { name, size, stores } = source
    this.disk = {
      name,
      size,
      stores: [...stores, stash.file],
      interrupt: () => {
        source.interrupt?.()
        this.#interrupted.abort()
      },
    }
  }

  /** Bytes that were copied first so far, in how many rounds. */
  get taken(): { bytes: number; rounds: number } {
    return { bytes: this.#bytes, rounds: this.#rounds }
  }

  /** Why nothing more is copied first, for the result; undefined if nothing failed. */
  get note(): string | undefined {
    if (this.#failure === undefined) return undefined
    const { what, why } = ioError(this.#source.name, this.#failure)
    return `what the point in time holds was not all copied first: ${what}: ${why}`
  }

  /**
   * Copies what is held and still to be read, if it is worth it, and discards it at the source.
   * @param job the copy in turn
   * @param ahead rows that it has not got yet; those of what was copied read from the stash now
   * @throws BackupError if the copy was aborted, or has ended
   */
  async take(job: CopyJob, ahead: PlanAhead): Promise<void> {
    if (this.#failure || this.#discarding.failure || ahead.isFull) return
    const now = performance.now()
    if (now < this.#next) return
    const { granule } = this.#discarding
    const { min, max, pauseMs } = this.#limits
    const most = Math.min(max, MAX_GRANULES * granule)
    let areas: Range[] = []
    try {
      const held = await this.#held()
      const done = performance.now()
      this.#next = done + Math.max(pauseMs, PAUSE_FACTOR * (done - now))
      areas = ahead.findReads(held, granule, Math.min(most, await this.#stash.room()))
      const bytes = areas.reduce((sum, { length }) => sum + length, 0)
      if (bytes < min || bytes === 0) return
      log('copy', () => `${bytes} bytes in ${areas.length} ranges are held: copied first`)
      await this.#copy(job, areas)
      this.#bytes += bytes
      this.#rounds++
      if (bytes >= most) this.#next = 0
    } catch (error) {
      if (this.#options.signal?.aborted || this.#interrupted.signal.aborted) throw error
      this.#failure = error
      log('copy', () => `nothing more is copied first: ${(error as Error).message}`)
      // The target may need the room.
      await this.#stash.free(areas).catch(() => {})
      return
    }
    const last = areas[areas.length - 1]
    this.#stashed = Math.max(this.#stashed, last.start + last.length)
    ahead.redirect(areas, this.disk.stores.length - 1)
    this.#discarding.taken(areas)
  }

  /** Everything before `position` is durable in the target. */
  passed(position: number): void {
    const end = Math.min(roundDown(position, this.#discarding.granule), this.#stashed)
    if (end <= this.#passed) return
    const area = { start: this.#passed, length: end - this.#passed }
    this.#passed = end
    // Only room is lost if it fails.
    void this.#stash.free([area]).catch(() => {})
  }

  async #copy(job: CopyJob, areas: readonly Range[]): Promise<void> {
    const { name, stores } = this.#source
    const { engine, direct, requests, retries, signal } = this.#options
    const { file } = this.#stash
    const { granule } = this.#discarding
    const signals = [this.#interrupted.signal, ...(signal ? [signal] : [])]
    await runCopy(
      { name, size: file.size, stores: stores.map(withFewConnections) },
      { path: file.path, store: { kind: 'file', fd: file.handle.fd } },
      () => rowsOf(areas, file.size),
      {
        format: { kind: 'patch', unit: Math.min(granule, MAX_UNIT) },
        ...{ engine, direct, requests, retries },
        sharesRateOf: job,
        memory: MEMORY,
        signal: AbortSignal.any(signals),
      },
    )
  }
}

function withFewConnections(store: SourceStore): SourceStore {
  if (store.kind !== 'export') return store
  return { ...store, connections: Math.min(store.connections, MAX_CONNECTIONS) }
}

/** The plan of a round: everything else is left as it is. */
async function* rowsOf(areas: readonly Range[], size: number): AsyncGenerator<Float64Array> {
  const mappings: (Mapping | CleanRange)[] = []
  let end = 0
  const leaveUpTo = (start: number) => {
    if (start > end) mappings.push({ kind: 'clean', start: end, length: start - end })
  }
  for (const { start, length } of areas) {
    leaveUpTo(start)
    mappings.push({ kind: 'data', start, length, store: 0, offset: start })
    end = start + length
  }
  leaveUpTo(size)
  yield packRows(mappings, OVERLAY)
}
