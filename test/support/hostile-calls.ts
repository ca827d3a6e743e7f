/**
 * Calls public functions with a hostile image: hostile-calls.js CASES, a JSON array of
 * {directory, names}. How each call ended is a line of JSON on descriptor 3. Each gets a copy of the
 * directory as it was. To be run with --expose-gc.
 */
import { cpSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import * as library from '../../lib/index.ts'
import { isBackupError } from '../../lib/index.ts'
import { isInTime } from './bounds.ts'
import { peakMemory, resetPeak } from './peak-memory.ts'

/** Of the processor: two backups and their verification are the most that is called at once. */
const SECONDS = 4

/** How a call ended. */
export interface Called {
  /** Of the image. */
  directory: string
  name: string
  /** `resolved`, or the code of a BackupError, or another exception. */
  outcome: string
  /** Of the processor, seconds. */
  cpu: number
  /** Whether that is within the bounds. */
  inTime: boolean
  /** Peak memory of the process meanwhile, KiB. */
  memory: number
}

async function drain(items: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of items);
}

const DISK = 'disk.qcow2'
const format = 'qcow2'
const MACHINE = `disk:vda=${DISK}`
const NAMED = { name: 'web', format } as const

/** Takes a stream and throws it away. */
async function taken({ stream, done }: library.ImageStream): Promise<void> {
  stream.on('error', () => {}).resume()
  await done
}

/** Each function with the image in each place where it takes one. */
export const CALLS: Readonly<Record<string, () => Promise<unknown>>> = {
  fullBackup: () => library.fullBackup(DISK, 'new', { format }),
  incrementalBackup: () =>
    library.incrementalBackup(DISK, 'new', { format, bitmap: 'b', backing: DISK }),
  fullBackupStream: async () => await taken(await library.fullBackupStream(DISK, { format })),
  incrementalBackupStream: async () => {
    const image = library.incrementalBackupStream(DISK, { format, bitmap: 'b', backing: DISK })
    await taken(await image)
  },
  restore: () => library.restore(DISK, 'new'),
  async openSource() {
    const source = await library.openSource(DISK, { format })
    await drain(source.extents()).finally(() => source.close())
  },
  async 'openSource, snapshot'() {
    const source = await library.openSource(DISK, { format, snapshot: 's' })
    await drain(source.extents()).finally(() => source.close())
  },
  editBitmap: () => library.editBitmap(DISK, 'new', [{ kind: 'add' }]),
  listBitmaps: () => library.listBitmaps(DISK),
  readBitmap: () => library.readBitmap(DISK, 'b', () => {}),
  readBitmapChain: () => library.readBitmapChain(DISK, { format }),
  createSnapshot: () => library.createSnapshot(DISK, 'new'),
  commitImage: () => library.commitImage(DISK),
  rebaseImage: () => library.rebaseImage(DISK, { file: 'empty.raw', format: 'raw' }),
  'rebaseImage, unsafe': () => library.rebaseImage(DISK, 'none', { unsafe: true }),
  backupMachine: () => library.backupMachine(MACHINE, 'repository', NAMED),
  async 'backupMachine, second'() {
    await library.backupMachine(MACHINE, 'repository', NAMED)
    return await library.backupMachine(MACHINE, 'repository', { ...NAMED, verify: true })
  },
  inspectMachine: () => library.inspectMachine(MACHINE, NAMED),
  abortMachine: () => library.abortMachine(MACHINE, NAMED),
  diffToBitmap: () => library.diffToBitmap(DISK, 'empty.raw', 'new'),
  diffDisks: () => library.diffDisks(DISK, 'empty.raw', { format, baselineFormat: 'raw' }),
  reportImage: () => library.reportImage(DISK, { format, output: 'page.html' }),
  verifyManifests: () => drain(library.verifyManifests([DISK])),
  imageInfo: () => library.imageInfo(DISK, { format }),
  backingChainInfo: () => library.backingChainInfo(DISK, { format }),
  checkImage: () => library.checkImage(DISK, { format }),
  'checkImage, repair': () => library.checkImage(DISK, { format, repair: 'all' }),
  mapImage: () => drain(library.mapImage(DISK, { format })),
  'mapImage, snapshot': () => drain(library.mapImage(DISK, { format, snapshot: 's' })),
  compareImages: () => library.compareImages([DISK, 'empty.raw'], { formats: [format, 'raw'] }),
  measureImage: () => library.measureImage(DISK, { format }),
}

async function outcomeOf(call: () => Promise<unknown>): Promise<string> {
  try {
    await call()
    return 'resolved'
  } catch (error) {
    return isBackupError(error) ? error.code : `${error}`
  }
}

const [, script, cases] = process.argv
if (script?.endsWith('hostile-calls.js')) {
  for (const { directory, names } of JSON.parse(cases) as {
    directory: string
    names: string[]
  }[]) {
    for (const name of names) {
      const call = CALLS[name]
      const work = join(directory, 'work')
      rmSync(work, { recursive: true, force: true })
      cpSync(join(directory, 'images'), work, { recursive: true })
      process.chdir(work)
      resetPeak()
      const before = process.cpuUsage()
      // The current run, in case it does not end.
      writeSync(3, `${JSON.stringify({ directory, name })}\n`)
      const outcome = await outcomeOf(call)
      const { user, system } = process.cpuUsage(before)
      const cpu = (user + system) / 1e6
      const cost = { cpu, inTime: isInTime(cpu, SECONDS), memory: peakMemory() }
      const called: Called = { directory, name, outcome, ...cost }
      writeSync(3, `${JSON.stringify(called)}\n`)
      process.chdir(directory)
    }
  }
}
