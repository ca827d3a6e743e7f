import { formatSize } from '../../../lib/units.ts'
import { fileKiB, IMAGE_LIMITS, type Limit, peakMemory, wallRatio, wallSeconds } from '../limits.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'

export const sparse: PerfCase = {
  name: 'sparse',
  title: 'Full backup of a huge raw disk with little in it',
  prepare: async (setup) => {
    const { size, blocks, blockSize } = setup.data.disks.scattered
    const disk = `${formatSize(size)}, ${blocks} scattered blocks of ${formatSize(blockSize)}`
    const limits = [wallRatio(0.25), peakMemory(300)]
    return planHuge(setup, await setup.data.scatteredRaw(), disk, limits)
  },
}

export const empty: PerfCase = {
  name: 'empty',
  title: 'Full backup of a huge raw disk with nothing in it',
  prepare: async (setup) => {
    const disk = `${formatSize(setup.data.disks.empty)}, one hole`
    const limits = [wallSeconds(0.5), fileKiB(512)]
    return planHuge(setup, await setup.data.emptyRaw(), disk, limits)
  },
}

/** No fio here: finding the data bounds these cases, not moving it. */
function planHuge({ ours, signal }: Setup, path: string, disk: string, limits: Limit[]): Plan {
  const source: Image = { path, format: 'raw' }
  return {
    disk,
    sources: [path],
    format: 'qcow2',
    ours: (target) => [...ours, 'full', path, target, '--json', '--no-progress'],
    peer: (target) => convert(source, { path: target, format: 'qcow2' }),
    verify: (target) => requireSame(source, { path: target, format: 'qcow2' }, signal),
    limits: [...limits, ...IMAGE_LIMITS],
  }
}
