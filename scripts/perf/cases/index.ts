import type { PerfCase } from './case.ts'
import { fullQcow2, fullRaw } from './full.ts'
import { restore } from './restore.ts'
import { empty, sparse } from './sparse.ts'

/** All cases, in the order in which they run and are shown. */
export const CASES: PerfCase[] = [fullRaw, fullQcow2, sparse, empty, restore]
