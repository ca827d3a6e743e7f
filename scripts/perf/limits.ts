import type { Summary, Unit, Verdict } from './results.ts'

/** Maximum of a figure. */
export interface Limit {
  what: string
  most: number
  unit: Unit
  /** The figure, in `unit`. */
  of(summary: Summary): number
}

/** Wall time, median of the pairwise ratios. */
export function wallRatio(most: number): Limit {
  return { what: 'wall to peer', most, unit: 'ratio', of: (s) => s.wall.ratio.median }
}

/** CPU time, median of the pairwise ratios. */
export function cpuRatio(most: number): Limit {
  return { what: 'CPU to peer', most, unit: 'ratio', of: (s) => s.cpu.ratio.median }
}

/** Blocks, the largest of ours to the peer's largest. */
export function allocatedRatio(most: number): Limit {
  const of = ({ allocated }: Summary) => allocated.ours / allocated.peer
  return { what: 'allocated to peer', most, unit: 'ratio', of }
}

/** Wall time, median, seconds. */
export function wallSeconds(most: number): Limit {
  return { what: 'wall', most, unit: 's', of: (s) => s.wall.ours.median }
}

/** Wall time to that of the limit, medians. */
export function limitRatio(most: number): Limit {
  const of = ({ wall, limit }: Summary) => wall.ours.median / (limit?.median ?? Number.NaN)
  return { what: 'wall to limit', most, unit: 'ratio', of }
}

/** Wall time beyond the peer's, medians, seconds. */
export function wallBeyondPeer(most: number): Limit {
  const of = ({ wall }: Summary) => wall.ours.median - wall.peer.median
  return { what: 'wall beyond peer', most, unit: 's', of }
}

/** CPU time, median, seconds. */
export function cpuSeconds(most: number): Limit {
  return { what: 'CPU', most, unit: 's', of: (s) => s.cpu.ours.median }
}

/** Peak memory of the worst run, MB of 10^6 bytes. */
export function peakMemory(most: number): Limit {
  return { what: 'peak memory', most, unit: 'MB', of: (s) => s.peak.ours.max / 1e6 }
}

/** Length of the target, KiB. */
export function fileKiB(most: number): Limit {
  return { what: 'file size', most, unit: 'KiB', of: (s) => s.fileSize.ours / 1024 }
}

/** Limits for every full image: in guest order, and at most 0.1 % larger than the peer's. */
export const IMAGE_LIMITS: Limit[] = [
  { what: 'fragmentation', most: 0.1, unit: '%', of: (s) => s.fragmentation!.ours },
  {
    what: 'file larger than peer',
    most: 0.1,
    unit: '%',
    of: (s) => (s.fileSize.ours / s.fileSize.peer - 1) * 100,
  },
]

/** Compares the figures with the limits. A figure that is not a number meets none. */
export function judge(limits: Limit[], summary: Summary): Verdict[] {
  return limits.map(({ what, most, unit, of }) => {
    const value = of(summary)
    return { what, value, most, unit, met: value <= most }
  })
}
