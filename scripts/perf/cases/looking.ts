import { join } from 'node:path'
import { BackupError } from '../../../lib/errors.ts'
import { formatSize } from '../../../lib/units.ts'
import { fioRead } from '../fio.ts'
import { type Limit, peakMemory, wallBeyondPeer, wallRatio } from '../limits.ts'
import { mappedClusters } from '../mapped-image.ts'
import { run, succeed } from '../process.ts'
import { fragmentation } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { describe } from './full.ts'

export const compare: PerfCase = {
  name: 'compare',
  title: 'Comparing a disk with our backup of it',
  prepare: (setup) => planCompare(setup, [], [wallRatio(0.7)]),
}

export const compareCompressed: PerfCase = {
  name: 'compare-compressed',
  title: 'Comparing a disk with our compressed backup of it',
  prepare: (setup) => planCompare(setup, ['--compress', 'zlib'], [wallRatio(0.6)]),
}

export const check: PerfCase = {
  name: 'check',
  title: 'Checking a huge image',
  prepare: (setup) => planTables(setup, ['check']),
}

export const map: PerfCase = {
  name: 'map',
  title: 'Mapping a huge image',
  prepare: (setup) => planTables(setup, ['map', '--output=json']),
}

export const info: PerfCase = {
  name: 'info',
  title: 'Telling what an image is, beside the start of Node',
  async prepare({ ours, data, signal }) {
    const image = await data.mixedQcow2()
    return {
      ...lookedAt(describe(data.disks.mixed), [image]),
      ours: () => [...ours, 'info', image],
      peer: () => [process.execPath, '-e', '0'],
      verify: () => requireSameWords(ours, ['info', image], signal),
      limits: [wallBeyondPeer(0.04)],
    }
  },
}

async function planCompare(
  { ours, data, scratch, signal }: Setup,
  options: string[],
  limits: Limit[],
): Promise<Plan> {
  const disk = await data.mixedQcow2()
  const backup = join(scratch, 'backup.qcow2')
  await succeed([...ours, 'full', ...options, disk, backup, '--no-progress'], signal)
  const limit = await fioRead([disk, backup], signal)
  const words = ['compare', '-f', 'qcow2', '-F', 'qcow2']
  return {
    ...lookedAt(describe(data.disks.mixed), [disk, backup]),
    ours: () => [...ours, ...words, disk, backup],
    // Past the page cache, which is where qemu-img is fastest.
    peer: () => ['qemu-img', ...words, '-T', 'none', disk, backup],
    limit: () => limit,
    verify: () => requireSameWords(ours, [...words, disk, backup], signal),
    limits,
  }
}

async function planTables(setup: Setup, command: string[]): Promise<Plan> {
  const { ours, data, signal } = setup
  const image = await data.mappedQcow2()
  await fragmentation(image, signal)
  const disk = data.disks.mapped
  const words = `${formatSize(disk.size)}, ${mappedClusters(disk)} clusters, ${disk.run} at a time`
  return {
    ...lookedAt(words, [image]),
    ours: () => [...ours, ...command, image],
    peer: () => ['qemu-img', ...command, image],
    verify: () => requireSameWords(ours, [...command, image], signal),
    limits: [wallRatio(1.5), peakMemory(250)],
  }
}

/** Common parts of cases that make no file. */
function lookedAt(disk: string, sources: string[]): Pick<Plan, 'disk' | 'sources' | 'format'> {
  return { disk, sources, format: 'raw' }
}

/** @throws BackupError DIFFERENT unless we print what the installed qemu-img does */
async function requireSameWords(
  ours: string[],
  command: string[],
  signal: AbortSignal,
): Promise<void> {
  const { stdout } = await succeed(['qemu-img', '--version'], signal)
  const version = /version (\d+\.\d+)/.exec(stdout)?.[1] ?? ''
  const a = await run(['qemu-img', ...command], signal)
  const b = await run([...ours, ...command, '--qemu-version', version], signal)
  if (a.status === b.status && a.stdout === b.stdout && a.stderr === b.stderr) return
  throw new BackupError('DIFFERENT', command.join(' '), 'is not what qemu-img prints')
}
