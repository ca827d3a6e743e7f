import type { Machine } from './machine.ts'
import type { Spread } from './stats.ts'

/** One run of one program. */
export interface Run {
  /** Seconds from start to exit. */
  wall: number
  /** Seconds of user and system time, the program and its children. */
  cpu: number
  /** Largest resident set of any of its processes, bytes. */
  peak: number
  /** Bytes it caused to be written (`ru_oublock`). */
  written: number
  /** Length of the target, bytes; 0 where it makes none. */
  fileSize: number
  /** Blocks of the target, bytes. */
  allocated: number
}

/** One of ours and the peer's run after it. */
export interface Pair {
  ours: Run
  peer: Run
}

/** Summary of all runs of a case. Ratios are ours to the peer's. */
export interface Summary {
  wall: { ours: Spread; peer: Spread; ratio: Spread }
  cpu: { ours: Spread; peer: Spread; ratio: Spread }
  peak: { ours: Spread; peer: Spread }
  written: { ours: Spread; peer: Spread }
  /** Length of the longest target, bytes. */
  fileSize: { ours: number; peer: number }
  allocated: { ours: number; peer: number }
  /** Percent of the image's clusters out of sequence; absent where the target is not an image. */
  fragmentation?: { ours: number; peer: number }
  /** Wall of the limit, seconds. */
  limit?: Spread
}

export type Unit = 'ratio' | 's' | 'MB' | 'KiB' | '%'

/** A limit held against the figures. */
export interface Verdict {
  what: string
  value: number
  most: number
  unit: Unit
  met: boolean
}

/** A case that ran and whose result was found right. */
export interface Measured {
  name: string
  title: string
  /** The disk, in words. */
  disk: string
  commands: { ours: string; peer: string; limit?: string }
  pairs: Pair[]
  limitWalls: number[]
  summary: Summary
  verdicts: Verdict[]
}

/** A case without figures: a program failed, or our result was wrong. */
export interface Failed {
  name: string
  title: string
  failure: string
}

export type CaseResult = Measured | Failed

/** All results of a run of the harness: the content of `results.json`. */
export interface Results {
  machine: Machine
  quick: boolean
  cases: CaseResult[]
}
