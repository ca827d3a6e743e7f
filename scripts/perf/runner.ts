import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { PerfCase, Plan } from './cases/case.ts'
import type { DataStore } from './data.ts'
import { judge } from './limits.ts'
import { evict, measure, settle, type Timed } from './measure.ts'
import type { CaseResult, Measured, Pair, Run } from './results.ts'
import { type Fragmentation, summarize } from './summary.ts'
import { fragmentation } from './verify.ts'

/** A limit's wall is steadier than ours: three runs place it. */
const LIMIT_RUNS = 3

/** Inspects a run's target, before it is removed. */
type Look = (run: Run) => Promise<void>

/** Shared by all cases. */
export interface Context {
  /** The start of our command line. */
  ours: string[]
  data: DataStore
  /** Directory on the measured file system. */
  dir: string
  pairs: number
  signal: AbortSignal
  /** Takes this machine's paths out of a command line or a message. */
  show(text: string): string
  log(line: string): void
}

/**
 * Runs one case. Its files lie in one directory, which is gone afterwards, however it ends; so are
 * its servers.
 * @throws only the signal's reason; other errors are the case's result
 */
export async function runCase(perfCase: PerfCase, context: Context): Promise<CaseResult> {
  const scratch = join(context.dir, 'targets')
  const ends: (() => Promise<void>)[] = []
  try {
    await rm(scratch, { recursive: true, force: true })
    await mkdir(scratch)
    const setup = { ...context, scratch, atEnd: (end: () => Promise<void>) => ends.unshift(end) }
    return await measureCase(perfCase, await perfCase.prepare(setup), scratch, context)
  } catch (error) {
    if (context.signal.aborted) throw context.signal.reason
    const failure = context.show((error as Error).message)
    context.log(`${perfCase.name}: failed: ${failure}`)
    return { name: perfCase.name, title: perfCase.title, failure }
  } finally {
    for (const end of ends) await end()
    await rm(scratch, { recursive: true, force: true })
  }
}

async function measureCase(
  { name, title }: PerfCase,
  plan: Plan,
  scratch: string,
  context: Context,
): Promise<Measured> {
  const { signal, log, show } = context
  const targets = {
    ours: join(scratch, `ours.${plan.format}`),
    peer: join(scratch, `peer.${plan.format}`),
    limit: join(scratch, 'limit'),
  }
  const timedWork = (command: string[] | Timed<Run>, target: string): Timed<Run> =>
    Array.isArray(command)
      ? {
          words: command.join(' '),
          run: () => measure(command, join(scratch, 'usage'), target, signal),
        }
      : command
  const work = {
    ours: timedWork(plan.ours(targets.ours), targets.ours),
    peer: timedWork(plan.peer(targets.peer), targets.peer),
    limit: plan.limit?.(targets.limit),
  }
  const fresh = async <T>(target: string, body: () => Promise<T>): Promise<T> => {
    await plan.before?.(target)
    for (const source of plan.sources) await evict(source, signal)
    if (plan.before) await evict(target, signal)
    const result = await body()
    await settle(target, scratch, signal)
    return result
  }
  const timed = (who: 'ours' | 'peer', look?: Look): Promise<Run> =>
    fresh(targets[who], async () => {
      const run = await work[who].run()
      await look?.(run)
      return run
    })

  log(`${name}: ${plan.disk}`)
  const fragments = await warmUp(plan, targets, timed, signal)
  log(`${name}: warm-up done, our result is right`)
  const pairs: Pair[] = []
  while (pairs.length < context.pairs) {
    const pair = { ours: await timed('ours'), peer: await timed('peer') }
    pairs.push(pair)
    const walls = `ours ${pair.ours.wall.toFixed(3)} s, peer ${pair.peer.wall.toFixed(3)} s`
    log(`${name}: pair ${pairs.length}/${context.pairs}: ${walls}`)
  }
  const limitWalls = await measureLimits(work.limit, (limit) => fresh(targets.limit, limit.run))
  const summary = summarize(pairs, limitWalls, fragments)
  return {
    name,
    title,
    disk: plan.disk,
    commands: {
      ours: show(work.ours.words),
      peer: show(work.peer.words),
      limit: work.limit && show(work.limit.words),
    },
    pairs,
    limitWalls,
    summary,
    verdicts: judge(plan.limits, summary),
  }
}

/**
 * Not between the pairs: tried with one program on both sides, the run after fio was up to a quarter
 * faster than the run after that one.
 */
async function measureLimits(
  limit: Timed<number> | undefined,
  once: (limit: Timed<number>) => Promise<number>,
): Promise<number[]> {
  const walls: number[] = []
  while (limit && walls.length < LIMIT_RUNS) walls.push(await once(limit))
  return walls
}

/**
 * One run of each that does not count, and the inspection of their targets: no figure is ever taken of
 * a program whose result is wrong.
 * @returns fragmentation of the two images, if the targets are images
 */
async function warmUp(
  plan: Plan,
  targets: { ours: string; peer: string },
  timed: (who: 'ours' | 'peer', look: Look) => Promise<Run>,
  signal: AbortSignal,
): Promise<Fragmentation | undefined> {
  const found: Fragmentation = { ours: 0, peer: 0 }
  const isImage = plan.format === 'qcow2'
  await timed('ours', async () => {
    if (isImage) found.ours = await fragmentation(targets.ours, signal)
    await plan.verify(targets.ours)
  })
  await timed('peer', async ({ fileSize }) => {
    if (isImage && fileSize > 0) found.peer = await fragmentation(targets.peer, signal)
  })
  return isImage ? found : undefined
}
