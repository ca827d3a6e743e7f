import type { GuestStore } from '../block-status/status.ts'
import { throwIfAborted } from '../errors.ts'
import { log } from '../log.ts'
import { type CompareJob, native } from '../native.ts'
import { nativeStore } from '../source/native-store.ts'
import { Turns } from '../turns.ts'
import { compareError } from './failure.ts'
import type { Found } from './found.ts'
import { isRead, type Side, type Step } from './plan.ts'
import { RowPairs } from './rows.ts'

export interface JobOptions {
  /** Of the two disks, for messages. */
  names: readonly [string, string]
  /** The stores that steps read. */
  stores: readonly GuestStore[]
  /** Findings are whole granules of this many bytes; 0: the first sector, which ends the job. */
  granularity: number
  /** Read past the page cache where files can be. */
  direct: boolean
  signal?: AbortSignal
  /** Receives findings, in guest order. */
  onFound(found: Found): void
  /** Called with each step, in order, after its findings. */
  onCompared(step: Step): void | Promise<void>
}

/** Reads in flight; more gain nothing on a local disk. */
const REQUESTS = 32
/**
 * Bytes of reads in flight and not yet compared: three steps of plain data of both sides. Measured
 * with 1 GiB in the page cache, 4 to 12 MiB take 0.6 s of processor time and more take more, for it
 * is no longer in the processor's caches. Past the page cache all take the same time.
 */
const MEMORY = 12 * 2 ** 20
/** With an export: a request on each of several connections while the server works on others. */
const REMOTE_MEMORY = 24 * 2 ** 20
/** Maximum steps planned ahead: there are as many that read nothing as the image has runs. */
const MAX_AHEAD = 4096

/** Numbers of a finding, see native/napi/compare_handle.cc. */
const FINDING_COLUMNS = 5
/** Kinds of findings as native/compare/finding.h has them: do not change one without the other. */
const REASONS = [undefined, 'read', 'shrank', 'damaged'] as const

/**
 * Compares steps until they end or, without a granularity, something is found.
 * @throws BackupError IO if it cannot continue, ABORTED; exceptions of the steps or the callbacks
 */
export async function runComparison(
  steps: AsyncIterable<Step>,
  options: JobOptions,
): Promise<void> {
  const { names, stores, signal } = options
  throwIfAborted(signal, names[0])
  const spec = {
    sources: stores.map((store) => nativeStore(store)),
    engine: 'auto' as const,
    direct: options.direct ? ('auto' as const) : ('off' as const),
    requests: REQUESTS,
    memory: stores.every((store) => store.kind === 'file') ? MEMORY : REMOTE_MEMORY,
    granularity: options.granularity,
  }
  log('compare', () => {
    const until = options.granularity
      ? `by granules of ${options.granularity}`
      : 'to the first difference'
    const how = `${spec.requests} requests, ${spec.memory} bytes, O_DIRECT ${spec.direct}`
    return `${names.join(' with ')}: ${until}; ${how}`
  })
  try {
    await new Comparison(native().compareStart(spec), options).run(steps)
  } catch (error) {
    throw compareError(error, names, stores, signal)
  }
}

/** A job under way. */
class Comparison {
  readonly #job: CompareJob
  readonly #options: JobOptions
  readonly #rows: RowPairs
  /** Planned and not yet reported, in order. */
  #planned: Step[] = []
  /** Guest bytes from 0 on that the job has compared. */
  #position = 0
  #ended = false
  #onNews: () => void = () => {}

  constructor(job: CompareJob, options: JobOptions) {
    this.#job = job
    this.#options = options
    this.#rows = new RowPairs(options.stores)
  }

  async run(steps: AsyncIterable<Step>): Promise<void> {
    const { signal } = this.#options
    const cancel = () => native().compareCancel(this.#job)
    signal?.addEventListener('abort', cancel)
    const attended = this.#attend()
    attended.catch(cancel)
    try {
      await this.#feed(steps)
      await this.#until(native().compareFinish(this.#job))
      await attended
      await this.#tell()
    } catch (error) {
      cancel()
      await Promise.allSettled([native().compareFinish(this.#job), attended])
      throw error
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
  }

  /** Hands the plan over as it is made; ends early when the job has ended. */
  async #feed(steps: AsyncIterable<Step>): Promise<void> {
    const { names, signal } = this.#options
    // Most answers to the plan's questions come synchronously.
    const turns = new Turns(names[0], signal)
    for await (const step of abortable(steps, signal)) {
      this.#planned.push(step)
      if (isRead(step)) this.#rows.add(step)
      if (this.#rows.full && !(await this.#push())) return
      if (this.#planned.length >= MAX_AHEAD && !(await this.#catchUp())) return
      const pause = turns.step()
      if (pause) await pause
    }
    await this.#push()
  }

  /** @returns false if the job has ended */
  async #push(): Promise<boolean> {
    if (this.#rows.empty) return true
    const files = this.#options.stores.length
    return await this.#until(native().comparePush(this.#job, this.#rows.take(), files))
  }

  /** Waits until half of the planned steps are compared; false if the job has ended. */
  async #catchUp(): Promise<boolean> {
    if (!(await this.#push())) return false
    await this.#tell()
    while (this.#planned.length > MAX_AHEAD / 2) {
      if (this.#ended) return false
      await this.#news()
      await this.#tell()
    }
    return true
  }

  /** Receives the job's findings, until it has ended. */
  async #attend(): Promise<void> {
    try {
      for (;;) {
        const events = await native().compareEvents(this.#job)
        if (!events) return
        for (const found of findingsOf(events.findings)) this.#options.onFound(found)
        this.#position = events.position
        this.#onNews()
      }
    } finally {
      this.#ended = true
      this.#onNews()
    }
  }

  /** Resolves when the job has got further, or has ended. */
  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#onNews = resolve
    })
  }

  /** Waits for a promise, and reports progress meanwhile. */
  async #until<T>(wanted: Promise<T>): Promise<T> {
    let settled = false
    const done = () => {
      settled = true
    }
    const end = wanted.then(done, done)
    while (!settled) {
      await Promise.race([end, this.#news()])
      await this.#tell()
    }
    return await wanted
  }

  /** Reports the steps that are compared, and those after them that read nothing. */
  async #tell(): Promise<void> {
    let told = 0
    try {
      for (const step of this.#planned) {
        if (isRead(step) && step.start + step.length > this.#position) return
        told++
        const waits = this.#options.onCompared(step)
        if (waits) await waits
        this.#options.signal?.throwIfAborted()
      }
    } finally {
      this.#planned.splice(0, told)
    }
  }
}

function* findingsOf(columns: Float64Array): Generator<Found> {
  for (let at = 0; at < columns.length; at += FINDING_COLUMNS) {
    const [kind, start, length, side, errnum] = columns.subarray(at, at + FINDING_COLUMNS)
    const reason = REASONS[kind]
    if (!reason) yield { kind: 'differs', start, length }
    else yield { kind: 'unreadable', start, length, side: side as Side, reason, errnum }
  }
}

/**
 * Passes on items; an abort ends it at once, whatever it is waiting for.
 * @throws the signal's reason
 */
async function* abortable<T>(items: AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
  if (!signal) return yield* items
  const iterator = items[Symbol.asyncIterator]()
  let stop = () => {}
  const aborted = () => stop()
  signal.addEventListener('abort', aborted)
  try {
    for (;;) {
      signal.throwIfAborted()
      const { done, value } = await new Promise<IteratorResult<T>>((resolve, reject) => {
        stop = () => reject(signal.reason)
        iterator.next().then(resolve, reject)
      })
      if (done) return
      yield value
    }
  } finally {
    signal.removeEventListener('abort', aborted)
    // Not waited for: it may be waiting for a server that is silent.
    iterator.return?.().catch(() => {})
  }
}
