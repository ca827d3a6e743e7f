import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { PerfCase, Plan } from './cases/case.ts'
import type { DataStore } from './data.ts'
import { measureLimit } from './fio.ts'
import { judge } from './limits.ts'
import { evict, measure, settle } from './measure.ts'
import type { CaseResult, Measured, Pair, Run } from './results.ts'
import { type Fragmentation, summarize } from './summary.ts'
import { fragmentation } from './verify.ts'

/** fio's wall is steadier than ours: three runs place it. */
const LIMIT_RUNS = 3

/** What all cases share. */
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
 * Runs one case. Its files lie in one directory, which is gone afterwards, however it ends.
 * @throws only what the signal was aborted with; other errors are the case's result
 */
export async function runCase(perfCase: PerfCase, context: Context): Promise<CaseResult> {
  const scratch = join(context.dir, 'targets')
  try {
    await rm(scratch, { recursive: true, force: true })
    await mkdir(scratch)
    return await measureCase(perfCase, scratch, context)
  } catch (error) {
    if (context.signal.aborted) throw context.signal.reason
    const failure = context.show((error as Error).message)
    context.log(`${perfCase.name}: failed: ${failure}`)
    return { name: perfCase.name, title: perfCase.title, failure }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

async function measureCase(
  { name, title, prepare }: PerfCase,
  scratch: string,
  context: Context,
): Promise<Measured> {
  const { signal, log, show } = context
  const plan = await prepare({ ...context, scratch })
  const targets = {
    ours: join(scratch, `ours.${plan.format}`),
    peer: join(scratch, `peer.${plan.format}`),
    limit: join(scratch, 'fio'),
  }
  const commands = {
    ours: plan.ours(targets.ours),
    peer: plan.peer(targets.peer),
    limit: plan.limit?.(targets.limit),
  }
  const fresh = async <T>(target: string, body: () => Promise<T>): Promise<T> => {
    for (const source of plan.sources) await evict(source, signal)
    const result = await body()
    await settle(target, scratch, signal)
    return result
  }
  const timed = (who: 'ours' | 'peer', look?: () => Promise<void>): Promise<Run> =>
    fresh(targets[who], async () => {
      const run = await measure(commands[who], join(scratch, 'usage'), targets[who], signal)
      await look?.()
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
  const limitWalls = await measureLimits(commands.limit, (command) =>
    fresh(targets.limit, () => measureLimit(command, signal)),
  )
  const summary = summarize(pairs, limitWalls, fragments)
  return {
    name,
    title,
    disk: plan.disk,
    commands: {
      ours: show(commands.ours.join(' ')),
      peer: show(commands.peer.join(' ')),
      limit: commands.limit && show(commands.limit.join(' ')),
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
  command: string[] | undefined,
  once: (command: string[]) => Promise<number>,
): Promise<number[]> {
  const walls: number[] = []
  while (command && walls.length < LIMIT_RUNS) walls.push(await once(command))
  return walls
}

/**
 * One run of each that does not count, and the look at what they made: no figure is ever taken of
 * a program whose result is wrong.
 * @returns fragmentation of the two images, if the targets are images
 */
async function warmUp(
  plan: Plan,
  targets: { ours: string; peer: string },
  timed: (who: 'ours' | 'peer', look: () => Promise<void>) => Promise<Run>,
  signal: AbortSignal,
): Promise<Fragmentation | undefined> {
  const found: Fragmentation = { ours: 0, peer: 0 }
  const isImage = plan.format === 'qcow2'
  await timed('ours', async () => {
    if (isImage) found.ours = await fragmentation(targets.ours, signal)
    await plan.verify(targets.ours)
  })
  await timed('peer', async () => {
    if (isImage) found.peer = await fragmentation(targets.peer, signal)
  })
  return isImage ? found : undefined
}
