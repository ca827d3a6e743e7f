import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { jobOptions } from '../../lib/backup/job-options.ts'
import { type FullOptions, fullBackup, type RestoreOptions, restore } from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImgInfo } from '../support/qemu.ts'

const GIB = 2 ** 30
const TIB = 2 ** 40

/** A directory with a disk of 1 MiB, and the options that make a copy go through any check. */
function setUp(test: Test, size = 2 ** 20) {
  const directory = test.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), size, [{ at: 4096, bytes: noise(5000) }])
  return { directory, disk, target: join(directory, 'target') }
}

/** Values that no option of numbers takes; JavaScript may pass them, whatever the types say. */
const NO_NUMBERS = [Number.NaN, Number.POSITIVE_INFINITY, '16']

type BadValues = [option: keyof FullOptions, values: unknown[], others?: FullOptions]
const BAD_VALUES: BadValues[] = [
  ['format', ['', 'vmdk', 'RAW', null]],
  ['backingFormat', ['', 'vmdk', null]],
  ['clusterSize', [0, 256, 511, 513, 12288, 2 ** 22, -65536, 512.5, Number.NaN]],
  ['requests', [0, -1, 1025, 1.5, ...NO_NUMBERS]],
  ['rateLimit', [0, -1, 0.5, 2 ** 53, ...NO_NUMBERS]],
  ['engine', ['', 'uring', 'IO_URING', true]],
  ['direct', ['', 'yes', true]],
  ['compress', ['', 'gzip', 'ZSTD', true]],
  ['compressionLevel', [0, 13, 2.5, ...NO_NUMBERS], { compress: 'zlib' }],
  ['compressionLevel', [0, 23, -5, ...NO_NUMBERS], { compress: 'zstd' }],
  ['compressionLevel', [3]],
]

t.test('bad values of every option are wrong usage, named by its key', async (t) => {
  const { directory, disk, target } = setUp(t)
  const backup = join(directory, 'backup.qcow2')
  await fullBackup(disk, backup)
  for (const [option, values, others] of BAD_VALUES) {
    for (const value of values) {
      const options = { ...others, [option]: value }
      const message = new RegExp(`^${option}: [^\n]+$`)
      const error = { name: 'BackupError', code: 'USAGE', argument: option, message }
      const told = `${option} ${JSON.stringify(value)}`
      await t.rejects(fullBackup(disk, target, options), error, `full: ${told}`)
      await t.rejects(
        restore(backup, target, { ...options, outputFormat: 'qcow2' }),
        error,
        `restore: ${told}`,
      )
    }
  }
  for (const outputFormat of ['', 'vmdk', 'QCOW2', null]) {
    await t.rejects(
      restore(backup, target, { outputFormat } as RestoreOptions),
      { code: 'USAGE', argument: 'outputFormat' },
      `an output format ${outputFormat} was once taken for raw`,
    )
  }
  t.strictSame(readdirSync(directory).sort(), ['backup.qcow2', 'disk.raw'], 'nothing was made')
})

t.test('the options of an image are refused for a raw target', async (t) => {
  const { directory, disk, target } = setUp(t)
  for (const [what, options] of [
    ['clusterSize', { clusterSize: 65536 }],
    ['compress', { compress: 'zstd' }],
    ['compressionLevel', { compressionLevel: 1 }],
  ] as const) {
    for (const outputFormat of [undefined, 'raw'] as const) {
      const how = { ...options, outputFormat, format: 'raw' as const }
      await t.rejects(restore(disk, target, how), {
        code: 'USAGE',
        message: `${what}: needs a qcow2 target`,
      })
    }
  }
  t.strictSame(readdirSync(directory), ['disk.raw'])
})

t.test('the largest and the smallest values are taken', async (t) => {
  const { disk, target } = setUp(t)
  for (const options of [
    { clusterSize: 512, requests: 1 },
    { clusterSize: 2 ** 21, requests: 1024 },
    { rateLimit: Number.MAX_SAFE_INTEGER },
    { compress: 'zlib', compressionLevel: 1 },
    { compress: 'zlib', compressionLevel: 12 },
    { compress: 'zstd', compressionLevel: 1 },
    { compress: 'zstd', compressionLevel: 22 },
  ] satisfies FullOptions[]) {
    await fullBackup(disk, target, { ...options, force: true })
    await restore(target, `${target}.raw`, { force: true })
    t.ok(readFileSync(`${target}.raw`).equals(readFileSync(disk)), JSON.stringify(options))
  }
})

t.test('an option that is undefined is the default', async (t) => {
  const { disk, target } = setUp(t)
  const nothing = {
    clusterSize: undefined,
    compress: undefined,
    compressionLevel: undefined,
    requests: undefined,
    rateLimit: undefined,
    engine: undefined,
    direct: undefined,
    signal: undefined,
    onProgress: undefined,
    force: undefined,
    format: undefined,
  }
  await fullBackup(disk, target, nothing)
  t.equal(qemuImgInfo(target)['cluster-size'], 65536)
  await restore(target, `${target}.raw`, { ...nothing, outputFormat: undefined })
  t.ok(readFileSync(`${target}.raw`).equals(readFileSync(disk)))
})

t.test('a disk needs clusters with which QEMU opens its L1 table', async (t) => {
  const usage = (why: string) => ({ code: 'USAGE', message: `clusterSize: ${why}` })
  for (const [clusterSize, most] of [
    [512, 128 * GIB],
    [1024, 512 * GIB],
    [4096, 8 * TIB],
    [65536, 2048 * TIB],
  ]) {
    t.equal(2 ** jobOptions('qcow2', most, { clusterSize }).format.clusterBits, clusterSize)
    t.throws(() => jobOptions('qcow2', most + 512, { clusterSize }), { code: 'USAGE' })
  }
  t.throws(
    () => jobOptions('qcow2', 2 ** 53 - 512, { clusterSize: 65536 }),
    usage('a disk of 8 PiB needs clusters of at least 128 KiB'),
  )
  t.equal(jobOptions('qcow2', 2 ** 53 - 512, { clusterSize: 2 ** 21 }).format.clusterBits, 21)

  const { directory, disk, target } = setUp(t, 200 * GIB)
  await t.rejects(
    fullBackup(disk, target, { clusterSize: 512 }),
    usage('a disk of 200 GiB needs clusters of at least 1 KiB'),
  )
  t.strictSame(readdirSync(directory), ['disk.raw'])
})

t.test('the result says how the copy was run', async (t) => {
  const { disk, target } = setUp(t)
  const how = { engine: 'threads', direct: 'off', force: true } as const
  t.match(await fullBackup(disk, target, how), { engine: 'threads', direct: false })
  t.match(await restore(target, `${target}.raw`, how), { engine: 'threads', direct: false })

  // Whether this directory has O_DIRECT is for the file system to say: all must say the same.
  const auto = await fullBackup(disk, target, { force: true })
  const on = fullBackup(disk, target, { direct: 'on', force: true })
  if (auto.direct) t.match(await on, { direct: true })
  else await t.rejects(on, { code: 'IO', errno: 'EINVAL' })
})
