import { IMAGE_LIMITS, judge, peakMemory, wallRatio } from '../../../scripts/perf/limits.ts'
import type { Failed, Measured, Pair, Results, Run } from '../../../scripts/perf/results.ts'
import { summarize } from '../../../scripts/perf/summary.ts'

function run(wall: number, fileSize: number): Run {
  return { wall, cpu: wall / 2, peak: 100e6, written: 3e9, fileSize, allocated: fileSize }
}

export const PAIRS: Pair[] = [
  { ours: run(4, 3_002_000_000), peer: run(5, 3e9) },
  { ours: run(6, 3_002_000_000), peer: run(6, 3e9) },
  { ours: run(3, 3_004_000_000), peer: run(5, 3e9) },
]
export const SUMMARY = summarize(PAIRS, [3.5, 3.7, 3.6], { ours: 0, peer: 3.94 })

/** One case that passed two limits and missed two. */
export const MEASURED: Measured = {
  name: 'full-raw',
  title: 'Full backup of a raw disk',
  disk: '8 GiB <mixed>',
  commands: { ours: 'node main.js full a & b', peer: 'qemu-img convert', limit: 'fio --bs=1M' },
  pairs: PAIRS,
  limitWalls: [3.5, 3.7, 3.6],
  summary: SUMMARY,
  verdicts: judge([wallRatio(1), peakMemory(90), ...IMAGE_LIMITS], SUMMARY),
}

export const FAILED: Failed = {
  name: 'restore',
  title: 'Restore to a raw file',
  failure: 'ours.raw: wrong result: Content mismatch at offset 4096!',
}

export const RESULTS: Results = {
  machine: {
    date: '2026-01-02T03:04:05.678Z',
    cpu: 'Some CPU',
    cores: 2,
    memory: 24 * 2 ** 30,
    kernel: '6.1.0',
    load: 0.25,
    fileSystem: 'ext4',
    qemuImg: '7.2.22',
    fio: 'fio-3.33',
    node: 'v20.20.2',
  },
  quick: false,
  cases: [MEASURED, FAILED],
}
