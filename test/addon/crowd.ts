/**
 * A program in which much goes on at once: `crowd.js DIRECTORY`. The disk of `makeDisk` lies in
 * DIRECTORY, where the images `NAME-I.qcow2` are made: ten at once by the main thread, one after
 * the other by each of two workers meanwhile.
 */
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { fullBackup } from '../../lib/index.ts'

/** More than libuv's pool has threads (4), all of which would be taken if copies waited there. */
const COPIES = 10
const WORKERS = 2
const COPIES_OF_WORKER = 3

const copy = (directory: string, name: string) =>
  fullBackup(join(directory, 'disk.raw'), join(directory, `${name}.qcow2`))

if (isMainThread) {
  const directory = process.argv[2]
  const workers = Array.from({ length: WORKERS }, (_, name) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { directory, name } })
    return once(worker, 'exit')
  })
  const copies = Array.from({ length: COPIES }, (_, i) => copy(directory, `main-${i}`))
  await Promise.all([...copies, ...workers])
} else {
  const { directory, name } = workerData
  for (let i = 0; i < COPIES_OF_WORKER; i++) await copy(directory, `worker${name}-${i}`)
}
