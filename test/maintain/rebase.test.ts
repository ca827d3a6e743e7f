import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openWritable } from '../../lib/image/file.ts'
import { lockOpened, WRITING } from '../../lib/image/locks.ts'
import {
  compareImages,
  createSnapshot,
  editBitmap,
  incrementalBackup,
  mapImage,
  type NewBacking,
  readBitmap,
  rebaseImage,
} from '../../lib/index.ts'
import { randomChanges, randomNumbers } from '../support/changes.ts'
import { noise } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_200_000)

const MIB = 2 ** 20

function create(path: string, size: number | string, ...options: string[]): void {
  qemuImg('create', '-q', '-f', 'qcow2', ...options, path, String(size))
}

/** Whether the guest sees what a raw file holds, as QEMU has it. */
function requireShows(t: Test, image: string, raw: string, what: string): void {
  const args = ['compare', '-f', 'qcow2', '-F', 'raw', image, raw]
  t.equal(run('qemu-img', args).stdout, 'Images are identical.\n', what)
  const { status, stderr } = qemuImgCheck(image)
  t.equal(status, 0, `${what}: check ${stderr}`)
}

const KINDS = [
  'cluster_size=512',
  'cluster_size=4k,compat=0.10',
  'cluster_size=16k,extended_l2=on',
  'cluster_size=64k',
  'cluster_size=64k,compat=0.10',
  'cluster_size=256k,extended_l2=on,compression_type=zstd',
  'cluster_size=2M',
]

/** Guest bytes that an image itself holds, by the first offset of each run. */
async function held(image: string): Promise<number[]> {
  const starts: number[] = []
  for await (const batch of mapImage(image, { format: 'qcow2' })) {
    for (const { start, depth, present } of batch) if (depth === 0 && present) starts.push(start)
  }
  return starts
}

for (const [index, options] of KINDS.entries()) {
  for (let seed = 1; seed <= effort(1, 12); seed++) {
    t.test(`what the guest sees stays, as with qemu-img: ${options}, seed ${seed}`, async (t) => {
      const dir = t.testdir()
      const at = (name: string) => join(dir, name)
      const random = randomNumbers(index * 1000 + seed)
      const pick = <T>(list: readonly T[]) => list[random(list.length)]
      const sizes = [0, MIB, 3 * MIB + 512, 5 * MIB, 7 * MIB + 1536]
      const write = (name: string, size: number, count: number) => {
        if (size > 0)
          qemuIo({ path: at(name), format: 'qcow2' }, ...randomChanges(size, count, seed + count))
      }
      const [low, middle, high, other] = Array.from({ length: 4 }, () => pick(sizes))
      create(at('low'), low, '-o', pick(KINDS))
      write('low', low, 12)
      create(at('middle'), middle, '-o', pick(KINDS), '-b', 'low', '-F', 'qcow2')
      write('middle', middle, 9)
      create(at('top'), high, '-o', options, '-b', 'middle', '-F', 'qcow2')
      write('top', high, 7)
      create(at('other'), other, '-o', pick(KINDS))
      // Much is the same there as in the chain.
      write('other', Math.min(other, low), 12)
      writeFileSync(at('raw'), Buffer.concat([noise(MIB, seed), Buffer.alloc(MIB), noise(700, 2)]))
      qemuImg('convert', '-f', 'qcow2', '-O', 'raw', at('top'), at('expected'))
      const backings: (NewBacking | 'none')[] = [
        { file: 'low', format: 'qcow2' },
        { file: 'other', format: 'qcow2' },
        { file: 'raw', format: 'raw' },
        'none',
      ]
      for (const backing of backings) {
        const named = backing === 'none' ? undefined : backing
        const what = `${high} bytes over ${middle} over ${low}, to ${named?.file} of ${other}`
        copyFileSync(at('top'), at('ours'))
        copyFileSync(at('top'), at('theirs'))
        const { dataBytes, zeroBytes } = await rebaseImage(at('ours'), backing)
        const over = named ? ['-b', named.file, '-F', named.format] : ['-b', '']
        qemuImg('rebase', ...over, at('theirs'))
        requireShows(t, at('ours'), at('expected'), what)
        const info = qemuImgInfo(at('ours'))
        t.equal(info['backing-filename'], named?.file)
        t.equal(info['backing-filename-format'], named?.format)
        if (dataBytes + zeroBytes === 0)
          t.strictSame(await held(at('ours')), await held(at('top')), what)
      }
    })
  }
}

t.test('an image whose new backing file holds the same gets nothing but its name', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  create(at('base'), '4M')
  qemuIo(at('base'), 'write -P 1 0 2M')
  create(at('top'), '4M', '-b', 'base', '-F', 'qcow2')
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', at('base'), at('same'))
  const before = readFileSync(at('top')).subarray(65536)
  const result = await rebaseImage(at('top'), { file: 'same', format: 'raw' })
  t.match(result, { image: at('top'), backing: 'same', dataBytes: 0, zeroBytes: 0 })
  t.ok(readFileSync(at('top')).subarray(65536).equals(before))
})

/** What is dirty, by granules of 64 KiB. */
async function dirtyIn(image: string, bitmap: string): Promise<string> {
  const dirty: string[] = []
  await readBitmap(image, bitmap, (runs) => {
    for (const run of runs) {
      if (run.dirty) dirty.push(`${run.start / 65536}+${run.length / 65536}`)
    }
  })
  return dirty.join()
}

t.test('a bitmap has what images had that drop out, and an increment by it is right', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  create(at('base'), '4M')
  qemuIo(at('base'), 'write -P 1 0 2M')
  qemuImg('convert', '-f', 'qcow2', '-O', 'qcow2', at('base'), at('sunday'))
  await editBitmap(at('base'), 'sunday', [{ kind: 'add' }])
  await createSnapshot(at('base'), at('middle'))
  qemuIo(at('middle'), 'write -P 2 0 128k')
  // The same as before: only the bitmap knows that it was written.
  qemuIo(at('middle'), 'write -P 1 1M 64k')
  await createSnapshot(at('middle'), at('top'))
  qemuIo(at('top'), 'write -P 3 3M 64k')
  await editBitmap(at('top'), 'own', [{ kind: 'add' }])
  qemuImg('convert', '-f', 'qcow2', '-O', 'qcow2', at('middle'), at('flat'))
  copyFileSync(at('top'), at('kept'))
  for (const backing of [{ file: 'flat', format: 'qcow2' } as const, 'none'] as const) {
    copyFileSync(at('kept'), at('top'))
    await rebaseImage(at('top'), backing)
    t.equal(await dirtyIn(at('top'), 'sunday'), '0+2,16+1,48+1')
    t.equal(await dirtyIn(at('top'), 'own'), '', 'what is copied is no change')
    const options = { bitmap: 'sunday', backing: at('sunday'), force: true }
    await incrementalBackup(at('top'), at('monday'), options)
    t.equal((await compareImages([at('top'), at('monday')])).identical, true)
  }
  copyFileSync(at('kept'), at('top'))
  await rebaseImage(at('top'), { file: 'middle', format: 'qcow2' })
  t.equal(await dirtyIn(at('top'), 'sunday'), '48+1', 'the others are in the chain as before')
})

t.test('a bitmap that would seem right over the new backing file is refused', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  create(at('base'), '4M')
  qemuImg('bitmap', '--add', at('base'), 'b')
  create(at('middle'), '4M', '-b', 'base', '-F', 'qcow2')
  qemuIo(at('middle'), 'write -P 2 0 128k')
  create(at('top'), '4M', '-b', 'middle', '-F', 'qcow2')
  qemuImg('bitmap', '--add', at('top'), 'b')
  const before = readFileSync(at('top'))
  await t.rejects(rebaseImage(at('top'), { file: 'base', format: 'qcow2' }), {
    code: 'BAD_BITMAP',
    why: /^its bitmap 'b' is not valid along its chain, but would seem to be along the new one/,
  })
  t.ok(readFileSync(at('top')).equals(before))
  qemuImg('bitmap', '--remove', at('top'), 'b')
  await rebaseImage(at('top'), { file: 'base', format: 'qcow2' })
})

t.test('what cannot be rebased is as it was', async (t) => {
  const dir = t.testdir({ elsewhere: {} })
  const at = (name: string) => join(dir, name)
  create(at('base'), '4M')
  qemuIo(at('base'), 'write -P 1 0 1M')
  create(at('top'), '4M', '-b', 'base', '-F', 'qcow2')
  create(at('shared'), '4M', '-b', 'base', '-F', 'qcow2')
  writeFileSync(at('raw'), noise(MIB, 1))
  create(at('elsewhere/low'), '4M')
  create(at('outside'), '4M', '-b', 'elsewhere/low', '-F', 'qcow2')
  create(at('above'), '4M', '-b', 'top', '-F', 'qcow2')
  create(at('external'), '4M', '-o', `data_file=${at('data')}`, '-b', 'base', '-F', 'qcow2')
  create(at('snapshots'), '4M', '-b', 'base', '-F', 'qcow2')
  qemuImg('snapshot', '-c', 's', at('snapshots'))
  create(at('damaged'), '4M')
  qemuIo(at('damaged'), 'write -P 1 0 64k')
  const refused = async (
    name: string,
    backing: NewBacking | 'none',
    expected: Record<string, unknown>,
    options = {},
  ) => {
    const before = readFileSync(at(name))
    const error = await rebaseImage(at(name), backing, options).catch((thrown) => thrown)
    t.match(error, { name: 'BackupError', ...expected }, name)
    t.ok(readFileSync(at(name)).equals(before), `${name} is as it was`)
  }
  const qcow2 = (file: string): NewBacking => ({ file, format: 'qcow2' })
  await refused('top', qcow2('outside'), { code: 'NOT_ALLOWED', hint: 'allowPaths' })
  await refused('top', qcow2('top'), { code: 'IN_USE' })
  await refused('top', qcow2('above'), { code: 'IN_USE' })
  await refused('top', qcow2('above'), { code: 'BAD_TARGET' }, { forceShare: true })
  await refused('external', 'none', { code: 'UNSUPPORTED', why: /^has its data in another file/ })
  await refused('snapshots', 'none', { code: 'UNSUPPORTED', why: /^has 1 internal snapshots/ })
  await refused('top', qcow2('gone'), { code: 'IO', errno: 'ENOENT' })
  await refused('top', { file: 'base', format: 'vmdk' } as unknown as NewBacking, { code: 'USAGE' })
  await refused('top', {} as unknown as NewBacking, { code: 'USAGE', argument: 'backing' })
  const writer = await openWritable(at('raw'))
  t.teardown(() => writer.handle.close())
  await lockOpened(writer, WRITING)
  const raw: NewBacking = { file: 'raw', format: 'raw' }
  await refused('top', raw, { code: 'IN_USE' })
  await rebaseImage(at('shared'), raw, { forceShare: true })
  const controller = new AbortController()
  const onProgress = () => controller.abort()
  await refused('top', 'none', { code: 'ABORTED' }, { signal: controller.signal, onProgress })
  await rebaseImage(at('external'), qcow2('base'))
  await rebaseImage(at('snapshots'), qcow2('moved'), { unsafe: true })
  await rebaseImage(at('top'), qcow2('outside'), { allowPaths: [at('elsewhere')] })
  t.equal(qemuImgInfo(at('top'))['backing-filename'], 'outside')
})

t.test('names are relative to the image, and kept as they are given', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  mkdirSync(at('below'))
  const name = Buffer.from('b\xe4se').toString('latin1')
  create(at('below/base'), '1M')
  create(at('below/top'), '1M', '-b', at('below/base'), '-F', 'qcow2')
  copyFileSync(at('below/base'), at(name))
  await rebaseImage(at('below/top'), { file: `../${name}`, format: 'qcow2' }, { allowPaths: [dir] })
  t.equal(qemuImgInfo(at('below/top'))['backing-filename'], `../${name}`)
  await rebaseImage(at('below/top'), { file: './base', format: 'qcow2' }, { allowPaths: [dir] })
  t.equal(qemuImgInfo(at('below/top'))['backing-filename'], './base')
})

t.test('a full file system leaves the image as it was', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  create(at('base'), '64M')
  qemuIo(at('base'), 'write -P 1 0 32M')
  create(at('top'), '64M', '-b', 'base', '-F', 'qcow2')
  qemuIo(at('top'), 'write -P 2 1M 64k')
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', at('top'), at('expected'))
  const limited = ['-c', 'ulimit -f 8192; trap "" XFSZ; exec "$@"', 'sh', process.execPath]
  const { CLI } = await import('../support/cli.ts')
  const { status, stderr } = run('bash', [...limited, CLI, 'rebase', '-b', '', at('top')])
  t.match(
    { status, stderr },
    { status: 1, stderr: /^qemu-img: .*(File too large|file too large).*\n$/ },
  )
  requireShows(t, at('top'), at('expected'), 'no space')
  t.equal(qemuImgInfo(at('top'))['backing-filename'], 'base')
  await rebaseImage(at('top'), 'none')
  requireShows(t, at('top'), at('expected'), 'done again')
})
