/**
 * A program that ends in the middle of things: `ending.js DIRECTORY STAGE ENDING`. The disk of
 * `makeDisk` lies in DIRECTORY. Prints `finished` if its copy ends while it still runs.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { native } from '../../lib/native.ts'
import { allRows, imageAt, specOf, unnamedFile, untilCopying } from './job.ts'

/** So slow that the copy takes a second at least. */
const SLOW = { rateLimit: 16 * 2 ** 20 }

/** How far the program gets with its copy. */
const STAGES = {
  async loaded() {
    native().versions()
  },
  async started(directory: string) {
    native().copyStart(specOf(directory, SLOW))
  },
  async pushed(directory: string) {
    const job = native().copyStart(specOf(directory, SLOW))
    native().copyPush(job, allRows(), 1)
  },
  async copying(directory: string) {
    const job = native().copyStart(specOf(directory, SLOW))
    native().copyPush(job, allRows(), 1)
    await untilCopying(job)
  },
  async compressing(directory: string) {
    const compression = { type: 'zstd', level: 19 } as const
    const target = { ...imageAt(unnamedFile(directory)), compression }
    const job = native().copyStart(specOf(directory, { target }))
    native().copyPush(job, allRows(), 1)
    await sleep(50)
  },
  async finishing(directory: string) {
    const job = native().copyStart(specOf(directory, SLOW))
    native().copyPush(job, allRows(), 1)
    native()
      .copyFinish(job)
      .then(() => console.log('finished'))
  },
  async finished(directory: string) {
    const job = native().copyStart(specOf(directory))
    await native().copyPush(job, allRows(), 1)
    await native().copyFinish(job)
  },
  async cancelled(directory: string) {
    const job = native().copyStart(specOf(directory, SLOW))
    native().copyPush(job, allRows(), 1)
    native().copyCancel(job)
  },
  async failed(directory: string) {
    const job = native().copyStart(specOf(directory))
    // Without rows there is no disk.
    await native()
      .copyFinish(job)
      .catch(() => undefined)
  },
}

/** How it ends then. */
const ENDINGS = {
  exit: () => process.exit(7),
  fall() {},
  throw() {
    setImmediate(() => {
      throw new Error('meant')
    })
  },
}

const [directory, stage, ending] = process.argv.slice(2)
await STAGES[stage as keyof typeof STAGES](directory)
ENDINGS[ending as keyof typeof ENDINGS]()
