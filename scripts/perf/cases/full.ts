import { formatSize } from '../../../lib/units.ts'
import { fioCopy } from '../fio.ts'
import type { MixedDisk } from '../layout.ts'
import { cpuRatio, IMAGE_LIMITS, peakMemory, wallRatio } from '../limits.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'

export const fullRaw: PerfCase = {
  name: 'full-raw',
  title: 'Full backup of a raw disk',
  prepare: async (setup) => planFull(setup, { path: await setup.data.mixedRaw(), format: 'raw' }),
}

export const fullQcow2: PerfCase = {
  name: 'full-qcow2',
  title: 'Full backup of a qcow2 disk',
  prepare: async (setup) =>
    planFull(setup, { path: await setup.data.mixedQcow2(), format: 'qcow2' }),
}

async function planFull({ ours, data, signal }: Setup, source: Image): Promise<Plan> {
  // The image holds just the data, without the holes, so reading it in one go is the bound.
  const limit = await fioCopy(await data.mixedQcow2(), signal)
  return {
    disk: describe(data.disks.mixed),
    sources: [source.path],
    format: 'qcow2',
    ours: (target) => [...ours, 'full', source.path, target, '--json', '--no-progress'],
    peer: (target) => convert(source, { path: target, format: 'qcow2' }),
    limit,
    verify: (target) => requireSame(source, { path: target, format: 'qcow2' }, signal),
    limits: [wallRatio(1), cpuRatio(1.5), peakMemory(160), ...IMAGE_LIMITS],
  }
}

/** The mixed disk in words. */
export function describe({ size, dataBytes, largest }: MixedDisk): string {
  const data = `${(dataBytes / 1e9).toPrecision(2)} GB of data`
  return `${formatSize(size)}, ${data} in extents of 4 KiB to ${formatSize(largest)}, half noise, half text`
}
