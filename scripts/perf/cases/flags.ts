import { formatSize } from '../../../lib/units.ts'
import {
  alternatingDisk,
  BITMAP,
  type ChangedDisk,
  cleanDisk,
  GRANULARITY,
  trimmedDisk,
} from '../changed-disks.ts'
import { cpuSeconds, fileKiB, type Limit, peakMemory, wallBeyondPeer } from '../limits.ts'
import { requireNoData } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { incremental, requireResult, serve } from './incremental.ts'

const GIB = 2 ** 30
const TIB = 2 ** 40

export const incTrimmed: PerfCase = {
  name: 'inc-trimmed',
  title: 'Incremental backup of a disk that was wholly zeroed',
  async prepare(setup) {
    const size = 10 * GIB
    const written = setup.data.disks.trimmed
    const words = `${formatSize(size)}, ${formatSize(written)} of it data in the previous backup, then wholly zeroed`
    const limits = [fileKiB(400), wallBeyondPeer(0.05)]
    return planFlags(setup, await trimmedDisk(setup, size, written), words, limits)
  },
}

export const incTrimmed1T: PerfCase = {
  name: 'inc-trimmed-1t',
  title: 'Incremental backup of a huge disk that was wholly zeroed',
  prepare: async (setup) =>
    planFlags(setup, await trimmedDisk(setup, TIB, 0), `${formatSize(TIB)}, wholly zeroed`, [
      fileKiB(400),
    ]),
}

export const incClean: PerfCase = {
  name: 'inc-clean',
  title: 'Incremental backup of an untouched disk',
  async prepare(setup) {
    const size = 10 * GIB
    const words = `${formatSize(size)}, nothing written since the previous backup`
    return planFlags(setup, await cleanDisk(setup, size), words, [fileKiB(400)])
  },
}

export const incAlternating: PerfCase = {
  name: 'inc-alternating',
  title: 'Incremental backup with every second granule dirty and zero',
  async prepare(setup) {
    const { alternating } = setup.data.disks
    const changed = await alternatingDisk(setup, alternating)
    const words = `${alternating} dirty granules of ${formatSize(GRANULARITY)} that read as zero, a clean one after each`
    return planFlags(setup, changed, words, [cpuSeconds(1), peakMemory(300)])
  },
}

/**
 * Nothing here is to be copied. The peer is our own list of dirty and zero ranges: start-up and
 * the bitmap's status without a copy.
 */
async function planFlags(
  setup: Setup,
  changed: ChangedDisk,
  disk: string,
  limits: Limit[],
): Promise<Plan> {
  const { uri } = await serve(changed, setup)
  return {
    disk,
    sources: [changed.disk, changed.previous],
    format: 'qcow2',
    ours: (target) => incremental(setup, uri, target, BITMAP, changed.previous),
    peer: () => [...setup.ours, 'extents', uri, '--bitmap', BITMAP],
    verify: async (target) => {
      await requireNoData(target, setup.signal)
      await requireResult(changed, target, setup.signal)
    },
    limits,
  }
}
