import { bitmapMerge, commit, commitWiped, diff } from './bitmaps.ts'
import type { PerfCase } from './case.ts'
import { incAlternating, incClean, incTrimmed, incTrimmed1T } from './flags.ts'
import { fullQcow2, fullRaw } from './full.ts'
import { fullNbd, fullNbdCopy } from './full-nbd.ts'
import { incScattered, incScatteredFile } from './incremental.ts'
import { liveFull, liveIncremental, liveLatency, liveLatencyMedian, liveScratch } from './live.ts'
import { check, compare, compareCompressed, info, map } from './looking.ts'
import { pruneJoin } from './prune.ts'
import { restore } from './restore.ts'
import { restoreChain } from './restore-chain.ts'
import { empty, sparse } from './sparse.ts'

/** All cases, in the order in which they run and are shown. */
export const CASES: PerfCase[] = [
  ...[fullRaw, fullQcow2, fullNbd, fullNbdCopy, sparse, empty],
  ...[incScattered, incScatteredFile, incTrimmed, incTrimmed1T, incClean, incAlternating],
  ...[liveFull, liveIncremental, liveLatency, liveLatencyMedian, liveScratch],
  ...[restore, restoreChain],
  ...[compare, compareCompressed, check, map, info],
  ...[diff, commit, commitWiped, bitmapMerge, pruneJoin],
]
