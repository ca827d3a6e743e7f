import { abortedError } from '../errors.ts'
import { log } from '../log.ts'
import { type CopyCounters, type CopyJob, type CopySpec, native } from '../native.ts'
import { planFresh, planOverlay } from '../plan/plan.ts'
import { areaOf } from '../plan/rows.ts'
import { nativeStore } from '../source/native-store.ts'
import type { Disk } from '../source/source.ts'
import { encodeText } from '../text.ts'
import type { Discarding } from './discard.ts'
import { copyError } from './failure.ts'
import { type Progress, Reporter } from './progress.ts'
import { CallerReads } from './reads.ts'
import { Retries } from './retry.ts'
import type { Target } from './target/target.ts'
import { Tasks } from './tasks.ts'

/** What the image is to be, and how the copy is run: checked and complete. */
export type RunOptions = Omit<
  CopySpec,
  'sources' | 'target' | 'size' | 'backing' | 'memory' | 'holdFailures'
> & {
  /** The backing file's name as it is recorded in the image; empty: none. */
  backing: string
  /** Times that an area which cannot be read is read again. */
  retries: number
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

export type JobOptions = RunOptions & {
  /**
   * Virtual size of the backing file, bytes. With it only what is dirty in the source's bitmap is
   * copied; without, the whole disk, and there is no backing file.
   */
  backingSize?: number
}

/**
 * Bytes of buffers. Measured on ext4 with O_DIRECT, 3 GB of data: with 32, 48 and 96 MiB a copy
 * takes the same time within the noise. This keeps the process near 110 MB with Node's own 50.
 */
const MEMORY = 48 * 2 ** 20

/**
 * Copies a source, whole or what changed, into a fresh target. The target is complete but not
 * synced when the promise resolves; when it rejects, nothing is written any more.
 * @param discarding told of what is durable
 * @throws BackupError; or what `onProgress` threw, which ends the copy
 */
export async function copyDisk(
  source: Disk,
  target: Pick<Target, 'path' | 'store'>,
  { backingSize, ...options }: JobOptions,
  discarding?: Discarding,
): Promise<CopyCounters> {
  const clusterSize = 2 ** options.clusterBits
  const plan =
    backingSize === undefined ? planFresh(source) : planOverlay(source, clusterSize, backingSize)
  return await runCopy(source, target, plan, options, discarding)
}

/**
 * Runs a copy by a plan: see copyDisk.
 * @param source what the rows of the plan point into
 */
export async function runCopy(
  source: Pick<Disk, 'name' | 'size' | 'stores' | 'interrupt'>,
  target: Pick<Target, 'path' | 'store'>,
  plan: AsyncIterable<Float64Array>,
  options: RunOptions,
  discarding?: Discarding,
): Promise<CopyCounters> {
  const { signal, onProgress, retries, ...spec } = options
  let job: CopyJob
  try {
    signal?.throwIfAborted()
    job = native().copyStart({
      ...spec,
      backing: encodeText(spec.backing),
      sources: source.stores.map((store) => nativeStore(store)),
      target: target.store,
      size: source.size,
      memory: MEMORY,
      holdFailures: true,
    })
  } catch (error) {
    throw abortedOr(error, source, target, signal)
  }
  const abort = () => native().copyCancel(job)
  signal?.addEventListener('abort', abort)
  const report = new Reporter(job, source.size, onProgress)
  const tasks = new Tasks(source.size)
  const reads = readsOf(job, source)
  const stopWatching = discarding?.watch(job)
  try {
    const attended = attend(job, tasks, new Retries(job, tasks, retries), reads, discarding)
    // The job would wait for what nobody answers any more.
    attended.catch(abort)
    // What the plan waits for is of no use any more: a server's answer, for which nobody else waits.
    // Not after the plan: what was copied last is still to be discarded at the source.
    let isPlanned = false
    const interrupt = () => isPlanned || source.interrupt?.()
    attended.then(interrupt, interrupt)
    await feed(job, plan, source.stores.length, tasks, attended)
    isPlanned = true
    const counters = await native().copyFinish(job)
    await attended
    log('copy', () => {
      const { engine, direct } = counters
      const written = `written ${direct ? 'past' : 'through'} the page cache`
      return `${target.path}: engine ${engine}, ${written}; asked for ${spec.engine}, O_DIRECT ${spec.direct}`
    })
    report.now()
    report.rethrow()
    return counters
  } catch (error) {
    report.rethrow()
    throw abortedOr(error, source, target, signal, reads?.failure)
  } finally {
    signal?.removeEventListener('abort', abort)
    stopWatching?.()
    reads?.stop()
    report.stop()
  }
}

/** What the calling program has to read by itself: such a source has nothing else. */
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
  plan: AsyncIterable<Float64Array>,
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
    for await (const rows of plan) {
      tasks.start(areaOf(rows))
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

/** Does what the running job asks for, until it has ended. */
async function attend(
  job: CopyJob,
  tasks: Tasks,
  retries: Retries,
  reads?: CallerReads,
  discarding?: Discarding,
): Promise<void> {
  for (;;) {
    const events = await native().copyEvents(job)
    if (!events) return
    reads?.start(events.reads)
    retries.add(events.failed)
    if (events.synced === undefined || !discarding) continue
    tasks.finish({ start: 0, length: events.synced })
    for (const area of tasks.discard(discarding.upTo(events.synced))) reads?.cancel(area)
  }
}

function abortedOr(
  error: unknown,
  source: Pick<Disk, 'name' | 'stores'>,
  target: Pick<Target, 'path' | 'store'>,
  signal?: AbortSignal,
  cause?: Error,
): Error {
  if (signal?.aborted) return abortedError(target.path, signal)
  return copyError(error, source, target.path, cause)
}
