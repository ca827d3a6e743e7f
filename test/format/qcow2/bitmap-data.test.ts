import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { bitmapRuns, dirtyBytes } from '../../../lib/format/qcow2/bitmap-data.ts'
import { bitmapTableSize } from '../../../lib/format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../../../lib/format/qcow2/bits.ts'
import { makeRaw, type Part } from '../../support/disks.ts'
import { sizeOf } from '../../support/patch.ts'

const CLUSTER = 512

/** Table entries, as bytes. */
function table(...entries: bigint[]): Buffer {
  const bytes = Buffer.alloc(entries.length * 8)
  for (const [i, entry] of entries.entries()) bytes.writeBigUInt64BE(entry, i * 8)
  return bytes
}

/** The runs of a bitmap with granules of 512 bytes, whose table is at 512 of a file. */
async function runsOf(
  t: Test,
  entries: bigint[],
  parts: readonly Part[],
  options: { fileSize?: number; virtualSize?: number } = {},
): Promise<DirtyRun[]> {
  const { fileSize = 64 * CLUSTER, virtualSize = entries.length * CLUSTER * 8 * 512 } = options
  const path = join(t.testdir(), 'image')
  makeRaw(path, fileSize, [{ at: CLUSTER, bytes: table(...entries) }, ...parts])
  const handle: FileHandle = await open(path)
  try {
    const file = { path: 'image', handle, size: sizeOf(path) }
    const bitmap = {
      ...{ name: 'b0', tableOffset: CLUSTER, tableSize: entries.length, granularityBits: 9 },
      ...{ inUse: false, auto: true },
    }
    const runs: DirtyRun[] = []
    const header = { virtualSize, clusterSize: CLUSTER }
    for await (const batch of bitmapRuns(file, header, bitmap)) runs.push(...batch)
    const dirty = runs.filter((run) => run.dirty).reduce((sum, { length }) => sum + length, 0)
    t.equal(await dirtyBytes(file, header, bitmap), dirty, 'as many bytes as in the runs')
    return runs
  } finally {
    await handle.close()
  }
}

/** Guest bytes that one cluster of bits stands for. */
const COVERED = CLUSTER * 8 * 512

t.test('clusters of bits that are not stored, all clean or all dirty', async (t) => {
  t.strictSame(await runsOf(t, [0n, 1n, 1n, 0n], []), [
    { start: 0, length: COVERED, dirty: false },
    { start: COVERED, length: 2 * COVERED, dirty: true },
    { start: 3 * COVERED, length: COVERED, dirty: false },
  ])
})

t.test('stored bits are read, next to each other or not', async (t) => {
  const parts = [
    { at: 4 * CLUSTER, bytes: Buffer.alloc(CLUSTER, 0xff) },
    { at: 5 * CLUSTER, bytes: Buffer.from([1]) },
    { at: 2 * CLUSTER + 511, bytes: Buffer.from([0x80]) },
  ]
  const entries = [4n, 5n, 0n, 2n].map((n) => n * BigInt(CLUSTER))
  t.strictSame(await runsOf(t, entries, parts, { virtualSize: 4 * COVERED - 1024 }), [
    { start: 0, length: COVERED + 512, dirty: true },
    { start: COVERED + 512, length: 3 * COVERED - 1536, dirty: false },
  ])
  t.strictSame((await runsOf(t, entries, parts)).slice(2), [
    { start: 4 * COVERED - 512, length: 512, dirty: true },
  ])
})

t.test('a table of many parts is read whole', async (t) => {
  const clusters = 20_000
  const entries = Array.from({ length: clusters }, (_, i) => BigInt(i % 2))
  const runs = await runsOf(t, entries, [], { fileSize: (clusters * 8 + 1024) | 511 })
  t.equal(runs.length, clusters)
  t.ok(runs.every((run, i) => run.start === i * COVERED && run.dirty === (i % 2 === 1)))
})

t.test('table entries that cannot be true are refused', async (t) => {
  const cases: [string, bigint][] = [
    ["bitmap 'b0': data cluster at 0x200 has unknown flags", 0x201n],
    ["bitmap 'b0': data cluster at 0x0 has unknown flags", 2n],
    ["bitmap 'b0': data cluster at 0x400 has unknown flags", 0x100n | 0x400n],
    ["bitmap 'b0': data cluster at 0x400 has unknown flags", (1n << 56n) | 0x400n],
    ["bitmap 'b0': data cluster at 0x400 has unknown flags", (1n << 63n) | 0x400n],
    ["bitmap 'b0': data cluster at 0x8000 is past the end of the file", 0x8000n],
    [
      "bitmap 'b0': data cluster at 0xfffffffffffe00 is past the end of the file",
      0xfffffffffffe00n,
    ],
  ]
  for (const [why, bad] of cases) {
    const runs = runsOf(t, [0n, bad], [])
    await t.rejects(runs, { code: 'BAD_IMAGE', what: 'image', why })
  }
})

t.test('bits past the end of a cut file are refused', async (t) => {
  // What is missing would else read as clean.
  const bits = runsOf(t, [0x400n], [], { fileSize: 3 * CLUSTER - 1 })
  await t.rejects(bits, { code: 'BAD_IMAGE', why: /0x400 is past the end of the file$/ })
  const cut = runsOf(t, [0n, 0n], [], { fileSize: CLUSTER + 8 })
  const why = "the table of bitmap 'b0' is past the end of the file"
  await t.rejects(cut, { code: 'BAD_IMAGE', why })
})

t.test('the clusters of bits that a disk needs are counted', async (t) => {
  const size = (virtualSize: number, granularityBits: number, clusterSize = 65536) =>
    bitmapTableSize({ virtualSize, clusterSize }, { granularityBits })
  t.equal(size(0, 16), 0)
  t.equal(size(512, 16), 1)
  t.equal(size(2 ** 35, 16), 1)
  t.equal(size(2 ** 35 + 512, 16), 2)
  t.equal(size(15 * 2 ** 40, 16), 480)
  t.equal(size(2 ** 53 - 512, 31), 8)
  t.equal(size(8192 * 512, 9, 512), 2)
})

t.test('a table that names one cluster of bits over and over is refused', async (t) => {
  const entries = new Array(40).fill(BigInt(4 * CLUSTER))
  const parts = [{ at: 4 * CLUSTER, bytes: Buffer.alloc(CLUSTER, 0xaa) }]
  await t.rejects(runsOf(t, entries, parts), {
    code: 'BAD_IMAGE',
    message: "image: bitmap 'b0' refers to the same clusters of bits over and over",
  })
})
