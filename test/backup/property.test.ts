/**
 * Random disks, each also kept as plain bytes: what we back up and restore, and what we say about
 * it, must agree with these.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { type CopyResult, type Extent, fullBackup, openSource, restore } from '../../lib/index.ts'
import type { ExtentsOptions } from '../../lib/source/source.ts'
import { firstDifference, noise, prose } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

const MOST = 4 * 2 ** 20
const SECTOR = 512

/** What a run of a disk is made of. `zeroes` are written, a `hole` never is. */
type Content = 'noise' | 'prose' | 'zeroes' | 'hole'

interface Run {
  content: Content
  length: number
}

const ALIGNMENTS = [1, SECTOR, 4096, 65536]

const anyRun: fc.Arbitrary<Run> = fc
  .record({
    content: fc.constantFrom<Content>('noise', 'prose', 'zeroes', 'hole'),
    alignment: fc.constantFrom(...ALIGNMENTS),
    times: fc.integer({ min: 1, max: 40 }),
  })
  .map(({ content, alignment, times }) => ({ content, length: alignment * times }))

const anyDisk = fc.array(anyRun, { maxLength: 30 })

const anyOptions = fc.record({
  clusterSize: fc.integer({ min: 9, max: 21 }).map((bits) => 2 ** bits),
  engine: fc.constantFrom('auto' as const, 'threads' as const),
  direct: fc.constantFrom('auto' as const, 'off' as const),
  compress: fc.constantFrom(undefined, undefined, 'zlib' as const, 'zstd' as const),
  requests: fc.integer({ min: 1, max: 32 }),
})

/** Writes a disk to a new file and returns what it reads as, filled up to a sector. */
function makeDisk(path: string, runs: readonly Run[]): Buffer {
  const size = Math.min(
    MOST,
    runs.reduce((sum, { length }) => sum + length, 0),
  )
  const model = Buffer.alloc(Math.ceil(size / SECTOR) * SECTOR)
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  let at = 0
  for (const [i, { content, length: wanted }] of runs.entries()) {
    const length = Math.min(wanted, size - at)
    if (content === 'noise') noise(length, i).copy(model, at)
    if (content === 'prose') prose(length, i).copy(model, at)
    if (content !== 'hole' && length > 0) writeSync(fd, model, at, length, at)
    at += length
  }
  closeSync(fd)
  return model
}

/** @throws if extents are not what they must be, or call bytes of the model zero that are not */
function checkExtents(extents: readonly Extent[], model: Buffer): void {
  let at = 0
  let last: Extent | undefined
  for (const extent of extents) {
    const { start, length, zero, hole } = extent
    const told = JSON.stringify(extent)
    if (start !== at || length <= 0) throw new Error(`${told} where ${at} was due`)
    if (last && last.zero === zero && last.hole === hole) throw new Error(`${told} is not merged`)
    if (hole && !zero) throw new Error(`${told} is a hole that is not zero`)
    if (zero && !isZero(model.subarray(start, start + length))) {
      throw new Error(`${told} is not zero`)
    }
    at += length
    last = extent
  }
  if (at !== model.length) throw new Error(`extents end at ${at} of ${model.length}`)
}

function isZero(bytes: Buffer): boolean {
  return bytes.equals(Buffer.alloc(bytes.length))
}

/** In an image of ours a cluster is zero, and a hole, exactly if all of its bytes are zero. */
function expectedExtents(model: Buffer, clusterSize: number): Extent[] {
  const extents: Extent[] = []
  for (let start = 0; start < model.length; start += clusterSize) {
    const cluster = model.subarray(start, start + clusterSize)
    const zero = isZero(cluster)
    const last = extents.at(-1)
    if (last?.zero === zero) last.length += cluster.length
    else extents.push({ start, length: cluster.length, zero, hole: zero })
  }
  return extents
}

/** @throws unless every page of zeroes that is aligned is in a zero extent */
function requireAllZeroes(extents: readonly Extent[], model: Buffer): void {
  for (const { start, length, zero } of extents) {
    if (zero) continue
    for (let at = Math.ceil(start / 4096) * 4096; at + 4096 <= start + length; at += 4096) {
      if (isZero(model.subarray(at, at + 4096))) throw new Error(`${at} is zero but not told so`)
    }
  }
}

async function extentsAt(path: string, options?: ExtentsOptions): Promise<Extent[]> {
  const source = await openSource(path, { format: path.endsWith('.raw') ? 'raw' : 'qcow2' })
  try {
    const extents: Extent[] = []
    for await (const extent of source.extents(options)) extents.push(extent)
    return extents
  } finally {
    await source.close()
  }
}

function requireSame(actual: Buffer, model: Buffer, what: string): void {
  const at = firstDifference(actual, model)
  if (at !== undefined) throw new Error(`${what} differs from the disk at ${at}`)
}

function requireSum(result: CopyResult, extents: readonly Extent[]): void {
  const data = extents.reduce((sum, { zero, length }) => sum + (zero ? 0 : length), 0)
  const { virtualSize, dataBytes, zeroBytes } = result
  if (dataBytes !== data || dataBytes + zeroBytes !== virtualSize) {
    throw new Error(`${JSON.stringify(result)} where ${data} bytes are data`)
  }
}

t.test('backup, check, restore: the disk; extents: true, and exact for our images', async (t) => {
  const directory = t.testdir()
  const disk = join(directory, 'disk.raw')
  const image = join(directory, 'backup.qcow2')
  const restored = join(directory, 'restored.raw')

  const property = fc.asyncProperty(anyDisk, anyOptions, async (runs, options) => {
    const model = makeDisk(disk, runs)
    checkExtents(await extentsAt(disk), model)
    const detected = await extentsAt(disk, { detectZeroes: true })
    checkExtents(detected, model)
    requireAllZeroes(detected, model)

    const result = await fullBackup(disk, image, { ...options, format: 'raw', force: true })
    const { status, stderr } = qemuImgCheck(image)
    if (status !== 0) throw new Error(`check ended with ${status}: ${stderr}`)
    const expected = expectedExtents(model, options.clusterSize)
    requireSum(result, expected)
    const extents = await extentsAt(image)
    if (JSON.stringify(extents) !== JSON.stringify(expected)) {
      throw new Error(`extents ${JSON.stringify(extents)} and not ${JSON.stringify(expected)}`)
    }

    const { engine, direct, requests } = options
    await restore(image, restored, { engine, direct, requests, force: true })
    requireSame(readFileSync(restored), model, 'what we restored')
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, restored)
    requireSame(readFileSync(restored), model, 'what QEMU reads')
  })
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31)
  t.comment(`seed ${seed}; SEED=${seed} runs the same disks again`)
  await t.resolves(fc.assert(property, { seed, numRuns: effort(15, 200) }))
})
