import { formatSize } from '../../../lib/units.ts'
import { BITMAP, type ChangedDisk, scatteredChanges } from '../changed-disks.ts'
import { fioCopy } from '../fio.ts'
import { granuleCommand, READ_FAST } from '../granules.ts'
import { scatteredLayout } from '../layout.ts'
import { type Limit, limitRatio, wallRatio } from '../limits.ts'
import type { Timed } from '../measure.ts'
import { succeed } from '../process.ts'
import type { Run } from '../results.ts'
import { jobInWords, startStorageDaemon } from '../servers/storage-daemon.ts'
import { requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'

export const incScattered: PerfCase = {
  name: 'inc-scattered',
  title: 'Incremental backup of scattered changes over NBD',
  async prepare(setup) {
    const changed = await scatteredChanges(setup, setup.data.disks.changed)
    const daemon = await serve(changed, setup)
    const granules = scatteredLayout(setup.data.disks.changed)
    const read = await granuleCommand(READ_FAST, daemon.uri, granules, setup)
    return {
      ...planScattered(setup, changed, daemon.uri, [wallRatio(0.55), limitRatio(1.15)]),
      peer: (target) => job(changed, target, setup, () => daemon.backup(target)),
      limit: () => ({
        words: read.join(' '),
        run: async () => (await succeed(read, setup.signal)).wall,
      }),
    }
  },
}

export const incScatteredFile: PerfCase = {
  name: 'inc-scattered-file',
  title: 'Incremental backup of scattered changes from the qcow2 file',
  async prepare(setup) {
    const changed = await scatteredChanges(setup, setup.data.disks.changed)
    return {
      ...planScattered(setup, changed, changed.disk, [wallRatio(0.4)]),
      limit: await fioCopy(changed.disk, setup.signal),
      peer: (target) =>
        job(changed, target, setup, async () => {
          const daemon = await serve(changed, setup)
          const run = await daemon.backup(target)
          await daemon.stop()
          return run
        }),
    }
  },
}

/** A changed disk served along with its bitmap. */
export function serve({ disk }: ChangedDisk, setup: Setup) {
  return startStorageDaemon({ path: disk, format: 'qcow2' }, BITMAP, setup)
}

/** The command that takes the incremental backup of a changed disk. */
export function incremental(
  { ours }: Setup,
  source: string,
  target: string,
  bitmap: string,
  previous: string,
): string[] {
  const what = ['--bitmap', bitmap, '--backing', previous]
  return [...ours, 'incremental', source, target, ...what, '--json', '--no-progress']
}

function planScattered(
  setup: Setup,
  changed: ChangedDisk,
  source: string,
  limits: Limit[],
): Omit<Plan, 'peer'> {
  const { size, blocks, blockSize } = setup.data.disks.changed
  return {
    disk: `${formatSize(size)}, ${blocks} scattered dirty granules of ${formatSize(blockSize)}, half noise, half text, written in random order`,
    sources: [changed.disk, changed.previous],
    format: 'qcow2',
    ours: (target) => incremental(setup, source, target, BITMAP, changed.previous),
    verify: (target) => requireResult(changed, target, setup.signal),
    limits,
  }
}

/** Compares a backup, read through the one before it, with the disk. */
export function requireResult(
  { disk }: ChangedDisk,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  return requireSame({ path: disk, format: 'qcow2' }, { path: target, format: 'qcow2' }, signal)
}

/** The storage daemon's own job, into a new image over the previous backup. */
function job(
  { previous }: ChangedDisk,
  target: string,
  { signal }: Setup,
  backup: () => Promise<Run>,
): Timed<Run> {
  const create = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', previous, target]
  return {
    words: jobInWords(BITMAP),
    async run() {
      await succeed(create, signal)
      return backup()
    },
  }
}
