import { abortedError } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import { type CopyCounters, type CopyJob, native } from '../native.ts'
import type { Disk } from '../source/source.ts'
import { Reporter } from './copy-progress.ts'
import { type Causes, copyError } from './failure.ts'
import { type PlanPart, withLayers } from './layer-rows.ts'
import { copySpec } from './native-spec.ts'
import { CallerReads } from './reads.ts'
import { Retries } from './retry.ts'
import type { JobOptions } from './spec.ts'
import type { Target } from './target/target.ts'
import { Tasks } from './tasks.ts'
import { CallerWrites } from './writes.ts'

/** A copy's target; for a hash only a name, for messages. */
export type CopyTarget = Pick<Target, 'path'> & Partial<Pick<Target, 'store'>>

/** What is done as more and more of a copy's target becomes durable. */
export interface Follower {
  /** Has a running copy's target synced now and then; returns a function that stops it. */
  watch(job: CopyJob): () => void
  /**
   * Everything before `position` is durable.
   * @returns the area of which nothing must be read any more
   */
  upTo(position: number): Range
}

/**
 * Runs a copy by a plan. The target is complete but not synced when the promise resolves (of a patch:
 * synced, too); when it rejects, nothing is written any more.
 * @param source the stores that rows of the plan point into
 * @param planOf makes the plan: rows for the whole disk, in order
 * @throws BackupError; or any exception of `onProgress`, which ends the copy
 */
export async function runCopy(
  source: Pick<Disk, 'name' | 'size' | 'stores' | 'interrupt'>,
  target: CopyTarget,
  planOf: (job: CopyJob) => AsyncIterable<Float64Array>,
  options: JobOptions,
  follower?: Follower,
): Promise<CopyCounters> {
  const { signal, onProgress, retries } = options
  let job: CopyJob
  try {
    signal?.throwIfAborted()
    job = native().copyStart(copySpec(source, target.store, options))
  } catch (error) {
    throw abortedOr(error, source, target, signal)
  }
  const abort = () => native().copyCancel(job)
  signal?.addEventListener('abort', abort)
  const report = new Reporter(job, source.size, onProgress)
  const tasks = new Tasks(source.size)
  const reads = readsOf(job, source)
  const writes = target.store?.kind === 'writer' ? new CallerWrites(job, target.store) : undefined
  const stopWatching = follower?.watch(job)
  try {
    const attended = attend(job, tasks, new Retries(job, tasks, retries), {
      reads,
      writes,
      follower,
    })
    // The job would wait for replies that never come.
    attended.catch(abort)
    // The plan may be waiting for a server's reply that is no longer needed.
    // Not after the plan: the last data copied is still to be discarded at the source.
    let isPlanned = false
    const interrupt = () => isPlanned || source.interrupt?.()
    attended.then(interrupt, interrupt)
    const plan = withLayers(planOf(job), options.layers)
    await feed(job, plan, source.stores.length, tasks, attended)
    isPlanned = true
    const counters = await native().copyFinish(job)
    await attended
    log('copy', () => {
      const { engine, direct } = counters
      const written = `written ${direct ? 'past' : 'through'} the page cache`
      return `${target.path}: engine ${engine}, ${written}; asked for ${options.engine}, O_DIRECT ${options.direct}`
    })
    report.now()
    report.rethrow()
    return counters
  } catch (error) {
    report.rethrow()
    throw abortedOr(error, source, target, signal, { read: reads?.failure, write: writes?.failure })
  } finally {
    signal?.removeEventListener('abort', abort)
    stopWatching?.()
    reads?.stop()
    report.stop()
    // Nothing is written any more when this is over, however it ended.
    await writes?.stop()
  }
}

/** The store that the calling program reads; a custom source has no other. */
function readsOf(job: CopyJob, source: Pick<Disk, 'stores'>): CallerReads | undefined {
  const [store] = source.stores
  return store?.kind === 'reader' ? new CallerReads(job, store) : undefined
}

/**
 * Hands the plan over as it is made; ends early when the job has ended, whose reason comes then.
 * @param attended resolves when the job has ended
 */
async function feed(
  job: CopyJob,
  plan: AsyncIterable<PlanPart>,
  files: number,
  tasks: Tasks,
  attended: Promise<void>,
): Promise<void> {
  let ended = false
  const end = () => {
    ended = true
  }
  attended.then(end, end)
  try {
    for await (const { area, rows } of plan) {
      tasks.start(area)
      if (!(await native().copyPush(job, rows, files))) return
    }
  } catch (error) {
    // If the job ended first, the plan was only interrupted, and the reason is the job's.
    const interrupted = ended
    native().copyCancel(job)
    const failure = await native()
      .copyFinish(job)
      .then(() => undefined)
      .catch((reason) => reason)
    throw interrupted ? (failure ?? error) : error
  }
}

interface Attendants {
  reads?: CallerReads
  writes?: CallerWrites
  follower?: Follower
}

/** Serves the running job's requests until it has ended. */
async function attend(
  job: CopyJob,
  tasks: Tasks,
  retries: Retries,
  { reads, writes, follower }: Attendants,
): Promise<void> {
  for (;;) {
    const events = await native().copyEvents(job)
    if (!events) return
    reads?.start(events.reads)
    writes?.start(events.writes)
    retries.add(events.failed)
    if (events.synced === undefined || !follower) continue
    tasks.finish({ start: 0, length: events.synced })
    for (const area of tasks.discard(follower.upTo(events.synced))) reads?.cancel(area)
  }
}

function abortedOr(
  error: unknown,
  source: Pick<Disk, 'name' | 'stores'>,
  target: CopyTarget,
  signal?: AbortSignal,
  causes?: Causes,
): Error {
  if (signal?.aborted) return abortedError(target.path, signal)
  return copyError(error, source, target.path, causes)
}
