import { join } from 'node:path'
import { fioCopy } from '../fio.ts'
import { wallRatio } from '../limits.ts'
import { succeed } from '../process.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { describe } from './full.ts'

export const restore: PerfCase = {
  name: 'restore',
  title: 'Restore of our full backup to a raw file',
  prepare: planRestore,
}

async function planRestore({ ours, data, scratch, signal }: Setup): Promise<Plan> {
  const disk: Image = { path: await data.mixedRaw(), format: 'raw' }
  // Made anew each time: the backup restored is written by the current program.
  const backup: Image = { path: join(scratch, 'backup.qcow2'), format: 'qcow2' }
  await succeed([...ours, 'full', disk.path, backup.path, '--json', '--no-progress'], signal)
  return {
    disk: describe(data.disks.mixed),
    sources: [backup.path],
    format: 'raw',
    ours: (target) => [...ours, 'restore', backup.path, target, '--json', '--no-progress'],
    peer: (target) => convert(backup, { path: target, format: 'raw' }),
    limit: await fioCopy(backup.path, signal),
    verify: (target) => requireSame(disk, { path: target, format: 'raw' }, signal),
    limits: [wallRatio(1)],
  }
}
