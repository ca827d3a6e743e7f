/**
 * A program whose workers are ended at random moments: `workers.js DIRECTORY ROUNDS`. The disk of
 * `makeDisk` lies in DIRECTORY. Prints as JSON how the workers ended and what stayed behind.
 */
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { fullBackup, restore } from '../../lib/index.ts'
import { native } from '../../lib/native.ts'
import { randomNumbers } from '../support/changes.ts'
import { allRows, specOf, untilCopying } from './job.ts'

/** What is printed. */
export interface WorkersReport {
  /** Exit codes of the workers, by the way they ended. */
  codes: Record<string, number[]>
  /** Errors that workers threw and nobody meant. */
  errors: string[]
  /** Files below DIRECTORY that the process still has open. */
  open: string[]
}

/** Most milliseconds that a worker is left alone: it takes about 50 to start, a copy about 30. */
const LIFE = 150

/** What a worker does until it is ended. */
const WORK = {
  async full(directory: string) {
    const target = join(directory, 'backup.qcow2')
    for (;;) await fullBackup(join(directory, 'disk.raw'), target, { force: true })
  },
  async compressed(directory: string) {
    const target = join(directory, 'small.qcow2')
    const options = { force: true, compress: 'zlib', compressionLevel: 9 } as const
    for (;;) await fullBackup(join(directory, 'disk.raw'), target, options)
  },
  async restored(directory: string) {
    const options = { force: true, format: 'raw', engine: 'threads' } as const
    for (;;) await restore(join(directory, 'disk.raw'), join(directory, 'restored.raw'), options)
  },
  async forgotten(directory: string) {
    native().copyStart(specOf(directory))
    const job = native().copyStart(specOf(directory, { rateLimit: 2 ** 20 }))
    native().copyPush(job, allRows(), 1)
    await untilCopying(job)
  },
  async exits(directory: string) {
    await WORK.forgotten(directory)
    process.exit(3)
  },
  async throws(directory: string) {
    await WORK.forgotten(directory)
    throw new Error('meant')
  },
} satisfies Record<string, (directory: string) => Promise<void>>

type Work = keyof typeof WORK

async function main(directory: string, rounds: number): Promise<void> {
  const report: WorkersReport = { codes: {}, errors: [], open: [] }
  const random = randomNumbers(rounds)
  const run = async (work: Work, life?: number) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { work, directory } })
    worker.on('error', (error) => error.message === 'meant' || report.errors.push(error.message))
    const ended = new Promise<number>((resolve) => worker.on('exit', resolve))
    if (life !== undefined) {
      await once(worker, 'message')
      await Promise.race([sleep(life), ended])
      await worker.terminate()
    }
    report.codes[work] ??= []
    report.codes[work].push(await ended)
  }
  for (let i = 0; i < rounds; i++) {
    // Two at a time, so that one still works while the other's environment is taken down.
    const two: Work[] = i % 2 === 0 ? ['full', 'compressed'] : ['restored', 'full']
    await Promise.all(two.map((work) => run(work, random(LIFE))))
    if (i % 5 === 0) await Promise.all([run('forgotten'), run('exits'), run('throws')])
  }
  report.open = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(directory) ? [path] : []
    } catch {
      return [] // that of the listing itself
    }
  })
  console.log(JSON.stringify(report))
}

if (isMainThread) {
  await main(process.argv[2], Number(process.argv[3]))
} else {
  parentPort!.postMessage('started')
  await WORK[workerData.work as Work](workerData.directory)
}
