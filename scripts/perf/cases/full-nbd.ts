import { join } from 'node:path'
import { wallRatio } from '../limits.ts'
import { measure, type Timed } from '../measure.ts'
import { succeed } from '../process.ts'
import type { Run } from '../results.ts'
import { startQemuNbd } from '../servers/qemu-nbd.ts'
import { startStorageDaemon } from '../servers/storage-daemon.ts'
import { usageOf } from '../servers/usage.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { describe } from './full.ts'

export const fullNbd: PerfCase = {
  name: 'full-nbd',
  title: 'Full backup over NBD',
  prepare: (setup) =>
    planFull(setup, 1, (uri, target) =>
      convert({ path: uri, format: 'raw' }, { path: target, format: 'qcow2' }),
    ),
}

export const fullNbdCopy: PerfCase = {
  name: 'full-nbd-nbdcopy',
  title: 'Full backup over NBD, against nbdcopy into qemu-nbd',
  prepare: (setup) =>
    planFull(setup, 0.6, (uri, target) => nbdcopy(uri, target, setup.data.disks.mixed.size, setup)),
}

async function planFull(
  setup: Setup,
  most: number,
  peer: (uri: string, target: string) => string[] | Timed<Run>,
): Promise<Plan> {
  const disk: Image = { path: await setup.data.mixedRaw(), format: 'raw' }
  const { uri } = await startStorageDaemon(disk, undefined, setup)
  return {
    disk: `${describe(setup.data.disks.mixed)}, a raw file served by qemu-storage-daemon`,
    sources: [disk.path],
    format: 'qcow2',
    ours: (target) => [...setup.ours, 'full', uri, target, '--json', '--no-progress'],
    peer: (target) => peer(uri, target),
    verify: (target) => requireSame(disk, { path: target, format: 'qcow2' }, setup.signal),
    limits: [wallRatio(most)],
  }
}

/** The qemu-nbd that writes the target belongs to the peer: its CPU time and memory count. */
function nbdcopy(uri: string, target: string, size: number, setup: Setup): Timed<Run> {
  const { scratch, signal } = setup
  const command = (to: string) => ['nbdcopy', '--destination-is-zero', '--flush', uri, to]
  return {
    words: `${command('nbd+unix:///disk?socket=TARGET').join(' ')} # qemu-nbd --cache=none --aio=native`,
    async run() {
      await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', target, `${size}`], signal)
      const server = await startQemuNbd(target, setup)
      const run = await measure(command(server.uri), join(scratch, 'usage'), target, signal)
      const used = await usageOf(server.pid)
      await server.stop()
      return {
        ...run,
        cpu: run.cpu + used.cpu,
        peak: Math.max(run.peak, used.peak),
        written: used.written,
      }
    },
  }
}
