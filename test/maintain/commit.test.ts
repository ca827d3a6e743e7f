/** Overlays committed into bases of every kind, judged by QEMU and a model of the bitmaps. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { commitImage, createSnapshot, readBitmap, readBitmapChain } from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

/** More by hand: COMMIT_SEEDS=20. */
const SEEDS = Number(process.env.COMMIT_SEEDS ?? effort(1, 3))
const M = 2 ** 20
const K = 1024

/** The disk as a raw file. */
function rawOf(image: string, format: string, to: string): Buffer {
  qemuImg('convert', '-f', format, '-O', 'raw', image, to)
  return readFileSync(to)
}

/** Dirty granules of a bitmap of one image. */
async function dirty(image: string, name: string): Promise<[number, number][]> {
  const runs: [number, number][] = []
  await readBitmap(image, name, (found) => {
    for (const run of found) if (run.dirty) runs.push([run.start, run.start + run.length])
  })
  return runs
}

/** Random writes of a guest; an empty image may have compressed clusters. */
function writes(
  random: (below: number) => number,
  size: number,
  empty?: { clusterSize: number },
): string[] {
  const compressed = Array.from({ length: empty ? 3 : 0 }, (_, i) => {
    const { clusterSize } = empty!
    const start = (i * 7 + random(6)) * clusterSize
    return start + clusterSize <= size ? [`write -c -P ${1 + i} ${start} ${clusterSize}`] : []
  }).flat()
  const plain = Array.from({ length: random(12) }, () => {
    const start = random(size / 512) * 512
    const most = random(4) === 0 ? 3000 : 200
    const length = Math.min(size - start, (1 + random(most)) * 512)
    const kinds = ['write -z', 'write -zu', 'discard']
    const kind = kinds[random(5)] ?? `write -P ${1 + random(250)}`
    return `${kind} ${start} ${length}`
  })
  return [...compressed, ...plain]
}

interface Kind {
  name: string
  format?: 'raw'
  options?: string
  snapshot?: true
  below?: true
  /** Not in a quick run, which has it together with something else. */
  thorough?: true
}

const KINDS: Kind[] = [
  { name: 'qcow2' },
  { name: 'raw', format: 'raw' },
  { name: 'over another', below: true },
  { name: 'small clusters', options: 'cluster_size=512' },
  {
    name: 'small clusters over another',
    options: 'cluster_size=4k',
    below: true,
    thorough: true,
  },
  { name: 'large clusters over another', options: 'cluster_size=2M', below: true },
  { name: 'extended L2', options: 'extended_l2=on,cluster_size=16k', thorough: true },
  { name: 'extended L2 over another', options: 'extended_l2=on,cluster_size=64k', below: true },
  { name: 'version 2', options: 'compat=0.10', thorough: true },
  { name: 'version 2 over another', options: 'compat=0.10,cluster_size=4k', below: true },
  { name: 'refcounts of 1 bit', options: 'refcount_bits=1,cluster_size=4k' },
  {
    name: 'refcounts of 1 bit over another',
    options: 'refcount_bits=1',
    below: true,
    thorough: true,
  },
  { name: 'a snapshot inside', snapshot: true, options: 'cluster_size=4k', thorough: true },
  { name: 'a snapshot inside, over another', snapshot: true, below: true },
  { name: 'preallocated', options: 'preallocation=metadata' },
  { name: 'zstd', options: 'compression_type=zstd' },
]

for (const { name, format = 'qcow2', options, snapshot, below, thorough } of KINDS) {
  if (thorough && !THOROUGH) continue
  t.test(`a commit into a base of this kind: ${name}`, async (t) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      await t.test(`seed ${seed}`, async (t) => {
        const random = randomNumbers(seed * 100 + KINDS.findIndex((kind) => kind.name === name))
        const dir = t.testdir()
        const at = (file: string) => join(dir, file)
        const sizes = [4 * M, 4 * M + 512, 3 * M - 1024, 6 * M + 4096]
        const base = at('base')
        const size = sizes[random(4)]
        const create = ['create', '-q', '-f', format]
        if (options) create.push('-o', options)
        if (below) {
          const lower = sizes[random(4)]
          qemuImg('create', '-q', '-f', 'qcow2', at('below'), `${lower}`)
          qemuIo(at('below'), ...writes(random, lower, { clusterSize: 64 * K }))
          create.push('-b', at('below'), '-F', 'qcow2')
        }
        qemuImg(...create, base, `${size}`)
        const isQcow2 = format === 'qcow2'
        const old = isQcow2 && options?.includes('0.10')
        const clusterSize = qemuImgInfo(base)['cluster-size'] ?? 64 * K
        const empty = isQcow2 && !options?.includes('preallocation') ? { clusterSize } : undefined
        qemuIo({ path: base, format: format as 'raw' }, ...writes(random, size, empty))
        if (snapshot) {
          qemuImg('snapshot', '-c', 's', base)
          qemuIo(base, ...writes(random, size))
        }
        if (isQcow2 && !old) qemuImg('bitmap', '--add', '-g', '32k', base, 'all')
        if (isQcow2 && !old) qemuIo(base, ...writes(random, size))
        const layers = 1 + random(3)
        let top = base
        for (let i = 0; i < layers; i++) {
          const overlay = at(`overlay${i}`)
          await createSnapshot(top, overlay, {
            backingFormat: 'qcow2',
            ...(top === base && !isQcow2 ? { backingFormat: 'raw' } : {}),
            clusterSize: [512, 4096, 65536, 2 * M][random(4)],
          })
          top = overlay
          const wanted = random(3) === 0 ? sizes[random(4)] : 0
          if (wanted) qemuImg('resize', '-q', '--shrink', top, `${wanted}`)
          const now = qemuImgInfo(top)['virtual-size']
          if (i === 1) qemuImg('bitmap', '--add', '-g', '4k', top, 'later')
          qemuIo(top, ...writes(random, now))
        }
        const topSize = qemuImgInfo(top)['virtual-size']
        const before = rawOf(top, 'qcow2', at('before'))
        const baseBefore = rawOf(base, format, at('base-before'))
        const inside = snapshot && convertSnapshot(base, at('inside'))
        const overlays = Array.from({ length: layers }, (_, i) => at(`overlay${i}`))
        const untouched = overlays.map((file) => readFileSync(file))
        const bitmaps = isQcow2 && !old ? ['all', 'later'] : []
        const unions = new Map<string, Uint8Array>()
        const newSize = Math.max(topSize, baseBefore.length)
        for (const bitmap of bitmaps) {
          const having = bitmap === 'all' ? [base, ...overlays] : overlays.slice(1)
          if (having.length === 0) continue
          const granule = bitmap === 'all' ? 32 * K : 4 * K
          unions.set(bitmap, await union(having, bitmap, granule, newSize))
        }
        if (!(await readBitmapChain(top)).bitmaps.every(({ valid }) => valid)) {
          t.fail('the test made a chain that is not healthy')
        }

        for (const run of effort(['once'], ['once', 'twice'])) {
          const result = await commitImage(top, { base })
          t.equal(result.virtualSize, newSize)
          const after = rawOf(base, format, at('after'))
          const expected = Buffer.alloc(newSize)
          baseBefore.copy(expected)
          before.copy(expected)
          t.equal(firstDifferent(after, expected), -1, `${run}: content of the base`)
          const seen = rawOf(top, 'qcow2', at('seen'))
          t.equal(firstDifferent(seen, before), -1, `${run}: what the top shows`)
          if (isQcow2) t.match(qemuImgCheck(base), { status: 0, stderr: '' }, `${run}: check`)
          overlays.forEach((file, i) => {
            t.ok(readFileSync(file).equals(untouched[i]), `${run}: ${file} is as it was`)
          })
          // QEMU shows it as large as the disk is now.
          const kept = inside && convertSnapshot(base, at('inside')).subarray(0, inside.length)
          if (inside && kept) t.equal(firstDifferent(kept, inside), -1, `${run}: the snapshot`)
          for (const [bitmap, expected] of unions) {
            const granule = bitmap === 'all' ? 32 * K : 4 * K
            const found = await union([base], bitmap, granule, newSize)
            t.ok(Buffer.from(found).equals(expected), `${run}: bits of ${bitmap}`)
          }
        }
        // QEMU writes to it, bitmaps and all.
        if (isQcow2) {
          qemuIo(base, 'write -P 77 64k 64k')
          t.equal(qemuImgCheck(base).status, 0)
        }
      })
    }
  })
}

function convertSnapshot(image: string, to: string): Buffer {
  qemuImg('convert', '-l', 'snapshot.name=s', '-f', 'qcow2', '-O', 'raw', image, to)
  return readFileSync(to)
}

function firstDifferent(a: Buffer, b: Buffer): number {
  if (a.length !== b.length) return Math.min(a.length, b.length)
  return a.equals(b) ? -1 : a.findIndex((byte, i) => byte !== b[i])
}

/**
 * A byte for each granule of the disk that any of the images has as dirty, which counts as such past
 * the end of a shorter one.
 */
async function union(
  images: string[],
  bitmap: string,
  granule: number,
  size: number,
): Promise<Uint8Array> {
  const bits = new Uint8Array(Math.ceil(size / granule))
  for (const image of images) {
    for (const [start, end] of await dirty(image, bitmap)) {
      bits.fill(1, Math.floor(start / granule), Math.ceil(end / granule))
    }
    const end = qemuImgInfo(image)['virtual-size']
    if (end < size) bits.fill(1, Math.floor(end / granule))
  }
  return bits
}
