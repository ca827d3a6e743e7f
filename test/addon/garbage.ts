/**
 * A program that lets go of jobs in every state while the garbage collector runs all the time:
 * `node --expose-gc garbage.js DIRECTORY ROUNDS`. The disk of `makeDisk` lies in DIRECTORY. Prints
 * how many files below it are still open in the end, and how many jobs did what they should not.
 */
import { closeSync, readdirSync, readlinkSync } from 'node:fs'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { type CopyJob, type CopySpec, native } from '../../lib/native.ts'
import { allRows, specOf } from './job.ts'

/** How a job goes on that nobody holds any more. */
const LIVES: ((job: CopyJob) => Promise<unknown> | undefined)[] = [
  () => undefined,
  (job) => {
    native().copyCancel(job)
    return undefined
  },
  (job) => {
    native().copyPush(job, allRows(), 1)
    return undefined
  },
  async (job) => {
    await native().copyPush(job, allRows(), 1)
    const { dataBytes } = await native().copyFinish(job)
    return dataBytes > 0
  },
  async (job) => {
    native().copyPush(job, allRows(), 1)
    const finished = native().copyFinish(job)
    native().copyCancel(job)
    return finished.then(
      () => true,
      (error) => error.code === 'ECANCELED',
    )
  },
  // The end is noticed by a call, while the news of it is still on its way.
  async (job) => {
    const finished = native().copyFinish(job)
    for (const end = performance.now() + 3; performance.now() < end; );
    return Promise.all([finished, native().copyFinish(job)]).then(
      () => false,
      (error) => error.code === 'EINVAL',
    )
  },
]

const collect = (globalThis as unknown as { gc(): void }).gc
const [directory, rounds] = process.argv.slice(2)

function start(changes: Partial<CopySpec>): CopyJob {
  const spec = specOf(directory, changes)
  const job = native().copyStart(spec)
  // The job has opened them again.
  const [source] = spec.sources
  if (source.kind === 'file') closeSync(source.fd)
  if (spec.target.kind === 'qcow2') closeSync(spec.target.store.fd)
  return job
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(directory)
    } catch {
      return false // that of the listing itself
    }
  }).length
}

let wrong = 0
for (let i = 0; i < Number(rounds); i++) {
  const ends = LIVES.map((live, n) => live(start(n === 0 ? { rateLimit: 2 ** 20 } : {})))
  collect()
  await nextTurn()
  collect()
  for (const end of ends) if ((await end) === false) wrong++
  collect()
}
for (let turn = 0; openFiles() > 0 && turn < 100; turn++) {
  collect()
  await sleep(10)
}
console.log(JSON.stringify({ wrong, open: openFiles() }))
