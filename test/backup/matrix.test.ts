import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CopyResult, fullBackup, restore } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { firstDifference, makeRaw, noise, prose } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { IMAGE_KINDS, type ImageKind, type MadeImage } from '../support/image-kinds.ts'
import { allPairs } from '../support/pairs.ts'
import { peek, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

const KIB = 2 ** 10
const MIB = 2 ** 20
const CLUSTERS = [512, 4 * KIB, 64 * KIB, 2 * MIB]

/** Virtual sizes in bytes, some of which depend on the clusters of the target. */
const SIZES = {
  '0': () => 0,
  '512': () => 512,
  '1000': () => 1000,
  '64K - 512': () => 64 * KIB - 512,
  '64K': () => 64 * KIB,
  'an odd number of clusters': (clusterSize: number) =>
    (Math.floor((4 * MIB) / clusterSize) | 1) * clusterSize,
  // An L2 table has clusterSize / 8 entries.
  'a bit over one L2 table': (clusterSize: number) => clusterSize ** 2 / 8 + clusterSize + 512,
} as const

interface Case {
  kind: ImageKind
  size: keyof typeof SIZES
  clusterSize: number
  direct: 'auto' | 'off'
  /** `auto` is io_uring wherever the kernel grants it, as it does not in every container. */
  engine: 'auto' | 'threads'
}

function possible({ kind, size, clusterSize }: Case): boolean {
  // Only a raw file can end within a sector.
  if (size === '1000' && !kind.startsWith('raw')) return false
  // What QEMU's largest L1 table allows clusters of 512 bytes.
  return kind !== 'qcow2, clusters of 512' || SIZES[size](clusterSize) <= 128 * 2 ** 30
}

/** Every two values of these meet in one case at least; in a quick run, every fifth case. */
const CASES = allPairs<Case>(
  {
    kind: Object.keys(IMAGE_KINDS) as ImageKind[],
    size: Object.keys(SIZES) as (keyof typeof SIZES)[],
    clusterSize: CLUSTERS,
    direct: ['auto', 'off'],
    engine: ['auto', 'threads'],
  },
  possible,
).filter((_, i) => effort(i % 5 === 0, true))

/** Small disks are compared here byte by byte; large ones, which are sparse, by qemu-img. */
function sameRaw(a: string, b: string): boolean {
  if (sizeOf(a) !== sizeOf(b)) return false
  if (sizeOf(a) <= 16 * MIB) return firstDifference(a, b) === undefined
  return qemuImgSame({ path: a, format: 'raw' }, { path: b, format: 'raw' })
}

/** What holds for every full backup that is not compressed. */
function checkImage(t: Test, image: string, source: MadeImage, clusterSize: number): void {
  const { status, report } = qemuImgCheck(image)
  t.equal(status, 0, 'check is clean')
  t.equal(report['fragmented-clusters'] ?? 0, 0, 'no fragmentation')
  t.ok(qemuImgSame({ path: image, format: 'qcow2' }, source), 'compare is identical')
  t.equal(peek(image, 4, 4).readUInt32BE(), 3, 'version')
  t.equal(peek(image, 20, 4).readUInt32BE(), Math.log2(clusterSize), 'cluster size')

  const theirs = `${image}.theirs`
  const options = `cluster_size=${clusterSize}`
  qemuImg('convert', '-f', source.format, '-O', 'qcow2', '-o', options, source.path, theirs)
  const most = Math.ceil((sizeOf(theirs) * 1.001) / clusterSize) * clusterSize
  t.ok(sizeOf(image) <= most, `${sizeOf(image)} bytes, qemu-img makes ${sizeOf(theirs)}`)
  rmSync(theirs)
}

/** @param reference the source's content, as a raw disk */
function checkResult(t: Test, result: CopyResult, target: string, reference: string): void {
  const { virtualSize, dataBytes, zeroBytes, unchangedBytes } = result
  t.equal(virtualSize, sizeOf(reference), 'virtual size')
  t.equal(dataBytes + zeroBytes + unchangedBytes, virtualSize, 'the bytes add up')
  t.equal(unchangedBytes, 0)
  t.equal(result.target, target)
  t.equal(result.fileSize, sizeOf(target), 'file size')
}

/** The content of a source as QEMU reads it, as a raw disk. */
function makeReference(directory: string, { format, path }: MadeImage): string {
  const reference = join(directory, 'reference.raw')
  qemuImg('convert', '-f', format, '-O', 'raw', path, reference)
  return reference
}

async function runCase(t: Test, { kind, size, ...how }: Case): Promise<void> {
  const directory = t.testdir()
  const source = IMAGE_KINDS[kind](directory, SIZES[size](how.clusterSize))
  const reference = makeReference(directory, source)
  const image = join(directory, 'backup.qcow2')
  const from = { format: source.format, allowPaths: [directory] }
  const result = await fullBackup(source.path, image, { ...from, ...how })
  checkResult(t, result, image, reference)
  checkImage(t, image, source, how.clusterSize)
  if (how.direct === 'off') t.equal(result.direct, false)
  if (how.engine === 'threads') t.equal(result.engine, 'threads')

  const { clusterSize: _, ...copying } = how
  const raw = join(directory, 'restored.raw')
  checkResult(t, await restore(image, raw, copying), raw, reference)
  t.ok(sameRaw(raw, reference), 'restored to raw')

  const again = join(directory, 'restored.qcow2')
  checkResult(
    t,
    await restore(image, again, { ...copying, outputFormat: 'qcow2' }),
    again,
    reference,
  )
  t.equal(qemuImgCheck(again).status, 0, 'restored to qcow2: check is clean')
  t.ok(qemuImgSame({ path: again, format: 'qcow2' }, source), 'restored to qcow2')
}

for (const kind of Object.keys(IMAGE_KINDS)) {
  t.test(kind, async (t) => {
    for (const one of CASES.filter((it) => it.kind === kind)) {
      const { size, clusterSize, direct, engine } = one
      const name = `${size}, clusters of ${clusterSize}, O_DIRECT ${direct}, ${engine}`
      await t.test(name, (t) => runCase(t, one))
    }
  })
}

t.test('backups of every cluster size hold the disk', async (t) => {
  const directory = t.testdir()
  const path = makeRaw(join(directory, 'disk.raw'), 3 * MIB + 512, [
    { at: 0, bytes: noise(100_000) },
    { at: MIB + 777, bytes: prose(MIB) },
    { at: 3 * MIB - 100, bytes: noise(612) },
  ])
  for (let clusterSize = 512; clusterSize <= 2 * MIB; clusterSize *= 2) {
    const image = join(directory, `${clusterSize}.qcow2`)
    const result = await fullBackup(path, image, { clusterSize })
    const source: MadeImage = { path, format: 'raw' }
    checkResult(t, result, image, path)
    checkImage(t, image, source, clusterSize)
    const raw = join(directory, 'restored.raw')
    await restore(image, raw, { force: true })
    t.equal(firstDifference(raw, path), undefined, `restored from clusters of ${clusterSize}`)
  }
})

t.test('backups by the command line hold the disk', async (t) => {
  for (const kind of ['raw, sparse', 'chain of three, raw base', 'zstd compressed'] as const) {
    const cwd = t.testdir({ [kind]: {} })
    mkdirSync(join(cwd, 'source'))
    const source = IMAGE_KINDS[kind](join(cwd, 'source'), 3 * MIB)
    const reference = makeReference(cwd, source)
    const image = join(cwd, 'backup.qcow2')
    const full = await runCli(['full', source.path, 'backup.qcow2', '--json'], { cwd })
    t.equal(full.status, 0, full.stderr)
    checkResult(t, { ...JSON.parse(full.stdout), target: image }, image, reference)
    checkImage(t, image, source, 64 * KIB)

    const raw = await runCli(['restore', 'backup.qcow2', 'restored.raw'], { cwd })
    t.equal(raw.status, 0, raw.stderr)
    t.equal(firstDifference(join(cwd, 'restored.raw'), reference), undefined, kind)

    const args = ['restore', '-O', 'qcow2', 'backup.qcow2', 'restored.qcow2']
    const again = await runCli(args, { cwd })
    t.equal(again.status, 0, again.stderr)
    checkImage(t, join(cwd, 'restored.qcow2'), source, 64 * KIB)
  }
})

t.test('a backup of a backup is the same image', async (t) => {
  const directory = t.testdir()
  const source = IMAGE_KINDS['internal snapshots'](directory, 4 * MIB)
  const [first, second] = [join(directory, 'first.qcow2'), join(directory, 'second.qcow2')]
  await fullBackup(source.path, first)
  await fullBackup(first, second)
  t.ok(readFileSync(first).equals(readFileSync(second)))
})
