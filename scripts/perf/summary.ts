import type { Pair, Run, Summary } from './results.ts'
import { pairwiseRatios, spread } from './stats.ts'

/** Fragmentation of both images, percent. */
export type Fragmentation = NonNullable<Summary['fragmentation']>

/** @throws RangeError without pairs */
export function summarize(
  pairs: Pair[],
  limitWalls: number[],
  fragmentation?: Fragmentation,
): Summary {
  const of = (figure: keyof Run) => ({
    ours: pairs.map((pair) => pair.ours[figure]),
    peer: pairs.map((pair) => pair.peer[figure]),
  })
  const both = (figure: keyof Run) => {
    const { ours, peer } = of(figure)
    return { ours: spread(ours), peer: spread(peer) }
  }
  const compared = (figure: keyof Run) => {
    const { ours, peer } = of(figure)
    return { ...both(figure), ratio: spread(pairwiseRatios(ours, peer)) }
  }
  const largest = (figure: keyof Run) => {
    const { ours, peer } = both(figure)
    return { ours: ours.max, peer: peer.max }
  }
  return {
    wall: compared('wall'),
    cpu: compared('cpu'),
    peak: both('peak'),
    written: both('written'),
    fileSize: largest('fileSize'),
    allocated: largest('allocated'),
    fragmentation,
    limit: limitWalls.length > 0 ? spread(limitWalls) : undefined,
  }
}
