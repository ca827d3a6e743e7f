import { copyFileSync, readFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { diskOf } from '../../lib/image/steps.ts'
import { type BitmapOperation, editBitmap, listBitmaps, openSource } from '../../lib/index.ts'
import { editBitmap as editBitmapOn } from '../../lib/maintain/edit-bitmap.ts'
import { randomNumbers } from '../support/changes.ts'
import { effort } from '../support/effort.ts'
import { nbdinfoMap } from '../support/nbdinfo.ts'
import { peek, peek64, poke, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo, run } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20

/** Edits of each kind of image. */
const STEPS = effort(5, 15)

/** Granules of a disk that are dirty in a model of a bitmap. */
interface Model {
  granularity: number
  auto: boolean
  dirty: Set<number>
}

/** Asserts that QEMU sees the bits that a model has. */
async function seenByQemu(
  t: Test,
  image: string,
  name: string,
  { granularity, dirty }: Model,
  size: number,
) {
  const { uri } = await startQemuNbd(t, image, { bitmaps: [name] })
  const seen = new Set<number>()
  for (const { offset, length, type } of nbdinfoMap(uri, `qemu:dirty-bitmap:${name}`)) {
    if (type === 0) continue
    for (let at = offset; at < offset + length; at += granularity) seen.add(at / granularity)
  }
  t.strictSame(
    [...seen].sort((a, b) => a - b),
    [...dirty].sort((a, b) => a - b),
    `${name} in QEMU`,
  )
  t.ok(size > 0)
}

t.test('random edits of images of every kind, against a model and QEMU', async (t) => {
  const kinds = [
    ['cluster_size=64k', 6 * MIB],
    ['cluster_size=512,refcount_bits=64', 3 * MIB + 512],
    ['cluster_size=512,refcount_bits=1', MIB],
    ['cluster_size=4k,refcount_bits=8', 9 * MIB],
    ['cluster_size=2M', 40 * MIB + 512],
    ['cluster_size=16k,extended_l2=on,compression_type=zstd', 5 * MIB],
    ['lazy_refcounts=on,refcount_bits=32', 7 * MIB],
  ] as const
  for (const [i, [options, size]] of kinds.entries()) {
    await t.test(options, async (t) => {
      const random = randomNumbers(i + 1)
      const image = join(t.testdir(), 'image')
      const whole = join(t.testdirName, 'whole')
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, String(size))
      qemuIo(image, 'write -P 1 0 300k')
      const models = new Map<string, Model>()
      for (let step = 0; step < STEPS; step++) {
        const name = `b${random(4)}`
        const model = models.get(name)
        const other = [...models.keys()][random(models.size || 1)]
        const [operation, change]: [BitmapOperation, () => void] = (() => {
          if (!model) {
            const granularity = 512 * 2 ** random(9)
            const add = { kind: 'add', granularity } as const
            return [
              add,
              () => models.set(name, { granularity, auto: true, dirty: new Set<number>() }),
            ]
          }
          switch (random(6)) {
            case 0:
              return [{ kind: 'remove' }, () => models.delete(name)]
            case 1:
              return [{ kind: 'clear' }, () => model.dirty.clear()]
            case 2:
              return [{ kind: 'enable' }, () => (model.auto = true)]
            case 3:
              return [{ kind: 'disable' }, () => (model.auto = false)]
            default:
              return [
                { kind: 'merge', source: other },
                () => merge(model, models.get(other)!, size),
              ]
          }
        })()
        await editBitmap(image, name, [operation])
        change()
        // The guest writes between the edits.
        const at = random(size / 512) * 512
        const length = Math.min(512 * (1 + random(400)), size - at)
        qemuIo(image, `write -P ${step + 1} ${at} ${length}`)
        for (const { granularity, auto, dirty } of models.values()) {
          if (!auto) continue
          for (let g = Math.floor(at / granularity); g * granularity < at + length; g++)
            dirty.add(g)
        }
        t.equal(qemuImgCheck(image).status, 0, `${step}: ${name} ${operation.kind}`)
        const listed = (await listBitmaps(image)).map((one) => [
          one.name,
          one.granularity,
          one.recording,
        ])
        const expected = [...models].map(([key, one]) => [key, one.granularity, one.auto])
        t.strictSame(listed.sort(), expected.sort())
      }
      for (const [name, model] of models) await seenByQemu(t, image, name, model, size)
      copyFileSync(image, whole)
      t.equal(qemuImg('compare', image, whole), 'Images are identical.\n')
    })
  }
})

function merge(into: Model, { granularity, dirty }: Model, size: number): void {
  for (const granule of [...dirty]) {
    const start = granule * granularity
    const end = Math.min(start + granularity, size)
    for (let g = Math.floor(start / into.granularity); g * into.granularity < end; g++)
      into.dirty.add(g)
  }
}

t.test('several operations: all or none', async (t) => {
  const image = join(t.testdir(), 'image')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  await editBitmap(image, 'b', [{ kind: 'add' }, { kind: 'disable' }])
  t.match(await listBitmaps(image), [
    { name: 'b', recording: false, inconsistent: false, dirtyBytes: 0 },
  ])
  const before = peek(image, 0, 600_000)
  const failing: BitmapOperation[] = [{ kind: 'enable' }, { kind: 'merge', source: 'gone' }]
  await t.rejects(editBitmap(image, 'b', failing), { code: 'BAD_BITMAP', operation: 'merge' })
  t.ok(peek(image, 0, 600_000).equals(before), 'not a byte is changed')
})

t.test('a bitmap is merged from another image, of another granularity', async (t) => {
  const dir = t.testdir()
  const [a, b] = ['a', 'b'].map((name) => join(dir, name))
  for (const image of [a, b]) qemuImg('create', '-q', '-f', 'qcow2', image, '5M')
  qemuImg('bitmap', '--add', '-g', '4k', a, 'x')
  qemuImg('bitmap', '--add', '-g', '64k', b, 'y')
  qemuIo(a, 'write 4k 4k', 'write 1M 68k', 'write 5119k 1k')
  await editBitmap(b, 'y', [{ kind: 'merge', source: 'x', from: a }])
  const source = await openSource(b, { bitmap: 'y' })
  t.equal(source.bitmap?.granularity, 65536)
  await source.close()
  t.equal((await listBitmaps(b))[0].dirtyBytes, (1 + 2 + 1) * 65536)
  await editBitmap(a, 'x', [{ kind: 'merge', source: 'y', from: b, format: 'qcow2' }])
  t.equal((await listBitmaps(a))[0].dirtyBytes, (1 + 2 + 1) * 65536)
})

t.test('what else is in an image stays as it is', async (t) => {
  const dir = t.testdir()
  const image = join(dir, 'image')
  qemuImg('create', '-q', '-f', 'raw', join(dir, 'base'), '4M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', image)
  qemuIo(image, 'write -P 1 0 1M')
  qemuImg('snapshot', '-c', 'one', image)
  qemuIo(image, 'write -P 2 512k 1M')
  copyFileSync(image, join(dir, 'before'))
  // An autoclear feature that nobody knows must be cleared by whoever writes.
  poke(image, 88, peek64(image, 88) | (1n << 40n))
  for (let i = 0; i < 5; i++) await editBitmap(image, `b${i}`, [{ kind: 'add' }])
  t.equal(peek64(image, 88), 1n)
  const info = qemuImgInfo(image)
  t.equal(info['backing-filename'], 'base')
  t.equal(qemuImg('compare', image, join(dir, 'before')), 'Images are identical.\n')
  for (let i = 0; i < 5; i++) await editBitmap(image, `b${i}`, [{ kind: 'remove' }])
  t.equal(qemuImgCheck(image).status, 0)
  t.equal(peek64(image, 88), 0n)
  t.equal(qemuImg('compare', image, join(dir, 'before')), 'Images are identical.\n')
})

t.test('names that are not UTF-8 and unknown extensions keep their bytes', async (t) => {
  const image = join(t.testdir(), 'image')
  qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
  for (const name of ['n-one', 'n-two']) qemuImg('bitmap', '--add', image, name)
  const names = [Buffer.from('n-\xe8ne', 'latin1'), Buffer.from('n-\xe9wo', 'latin1')]
  const whole = readFileSync(image)
  for (const [i, name] of ['n-one', 'n-two'].entries()) {
    // Also in directories that QEMU does not use any more.
    for (let at = whole.indexOf(name); at >= 0; at = whole.indexOf(name, at + 1)) {
      poke(image, at, names[i])
    }
  }
  // An extension that nobody knows, where the end marker was: the file has nothing behind it.
  const unknown = Buffer.from('\x12\x34\x56\x78\0\0\0\x0bunknown \xff\xfe\xfd\0\0\0\0\0', 'latin1')
  const end = whole.indexOf(Buffer.from('23852875', 'hex')) + 32
  poke(image, end, unknown)
  const same = (what: string, bitmaps: number) => {
    const bytes = readFileSync(image)
    for (const name of names) t.ok(bytes.includes(name), `${what}: the name's bytes`)
    const head = bytes.subarray(0, 65536)
    t.equal(head.toString('latin1').split(unknown.toString('latin1')).length, 2, what)
    t.equal(qemuImgCheck(image).status, 0, what)
    const info = qemuImgInfo(image)['format-specific']?.data as { bitmaps: unknown[] }
    t.equal(info.bitmaps.length, bitmaps, what)
  }
  await editBitmap(image, 'third', [{ kind: 'add' }])
  same('added', 3)
  const [{ name: first }, { name: second }] = await listBitmaps(image)
  t.not(first, second)
  await editBitmap(image, first, [{ kind: 'disable' }])
  same('disabled by its name', 3)
  await editBitmap(image, second, [{ kind: 'merge', source: 'third' }, { kind: 'clear' }])
  same('given other bits', 3)
  await editBitmap(image, 'third', [{ kind: 'remove' }])
  same('another one removed', 2)
})

t.test('the refcount table grows where an edit needs it', async (t) => {
  const image = join(t.testdir(), 'image')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512,refcount_bits=64', image, '64M')
  const clusters = () => peek(image, 56, 4).readUInt32BE()
  // A refcount block for 32 KiB of the file, a cluster of the table for 2 MiB.
  qemuIo(image, 'write -P 1 0 1940k')
  const before = clusters()
  const whole = `${image}.whole`
  copyFileSync(image, whole)
  await editBitmap(image, 'all', [{ kind: 'add', granularity: 512 }])
  qemuIo(image, 'write -P 1 0 1940k')
  let grown = 0
  for (let i = 0; i < 48; i++) {
    await editBitmap(image, `b${i}`, [
      { kind: 'add', granularity: 512 },
      { kind: 'merge', source: 'all' },
    ])
    if (i % effort(8, 1) === 0) t.equal(qemuImgCheck(image).status, 0, `${i}`)
    if (clusters() > before) grown++
  }
  t.ok(grown > 0, `${grown} edits with a larger table`)
  t.equal(qemuImgCheck(image).status, 0)
  t.equal((await listBitmaps(image)).at(-1)?.dirtyBytes, 1940 * 1024)
  t.equal(qemuImg('compare', image, whole), 'Images are identical.\n')
})

t.test('images that cannot be edited are refused unchanged', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  const add: BitmapOperation[] = [{ kind: 'add' }]
  const fresh = (name: string, ...options: string[]) => {
    qemuImg('create', '-q', '-f', 'qcow2', ...options, at(name), '4M')
    return at(name)
  }
  const unchanged = async (image: string, error: { code: string; message?: RegExp }) => {
    const before = peek(image, 0, 400_000)
    await t.rejects(editBitmap(image, 'b', add), error)
    t.ok(peek(image, 0, 400_000).equals(before), `${image}: not a byte is changed`)
  }
  const corrupt = fresh('corrupt')
  poke(corrupt, 72, 2n)
  await unchanged(corrupt, { code: 'BAD_IMAGE', message: /is marked as corrupt/ })
  const dirty = fresh('dirty')
  poke(dirty, 72, 1n)
  await unchanged(dirty, { code: 'BAD_IMAGE', message: /was not closed cleanly/ })
  const wrong = fresh('wrong')
  // The refcount of the L1 table is lost: its cluster would be taken.
  poke(wrong, Number(peek64(wrong, Number(peek64(wrong, 48)))) + 6, Buffer.alloc(2))
  await unchanged(wrong, { code: 'BAD_IMAGE', message: /is corrupt, and is not written to: ERROR/ })
  await unchanged(fresh('old', '-o', 'compat=0.10'), { code: 'BAD_BITMAP', message: /version 2/ })
  qemuImg('create', '-q', '-f', 'raw', at('raw'), '1M')
  await t.rejects(editBitmap(at('raw'), 'b', add), { code: 'UNSUPPORTED' })
  await t.rejects(editBitmap(at('gone'), 'b', add), { code: 'IO' })
  await t.rejects(editBitmap('', 'b', add), { code: 'USAGE' })

  const held = fresh('held')
  await startQemuNbd(t, held, { writable: true })
  await unchanged(held, { code: 'IN_USE' })
})

t.test(
  'an edit without room on the file system leaves the image as it was, or leaks clusters',
  async (t) => {
    const image = join(t.testdir(), 'image')
    qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
    qemuIo(image, 'write 0 1M')
    const before = peek(image, 0, sizeOf(image))
    for (let fails = 1; fails < 4; fails++) {
      let writes = 0
      const full = Object.assign(new Error('no space'), { code: 'ENOSPC', syscall: 'write' })
      const disk = (edited: { file: { handle: FileHandle } }) => {
        const real = diskOf(edited.file.handle)
        return {
          ...real,
          async write(write: { offset: number; bytes: Buffer }) {
            if (++writes === fails) throw full
            await real.write(write)
          },
        }
      }
      const edit = editBitmapOn(image, 'b', [{ kind: 'add' }], { disk })
      // First comes what nothing refers to yet; then the refcounts of it.
      if (fails === 1) {
        await t.rejects(edit, { code: 'IO', errno: 'ENOSPC', what: image })
        t.ok(peek(image, 0, sizeOf(image)).equals(before), `write ${fails}`)
      } else {
        await t.rejects(edit, { code: 'IO', errno: 'ENOSPC' })
        t.equal(qemuImgCheck(image).report.corruptions ?? 0, 0)
      }
    }
  },
)

t.test('an inconsistent bitmap can only be removed', async (t) => {
  const image = join(t.testdir(), 'image')
  qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
  for (const name of ['b', 'c']) qemuImg('bitmap', '--add', image, name)
  run('qemu-io', ['-c', 'write 0 64k', '-c', 'abort', image])
  const code = { code: 'BAD_BITMAP', message: /is inconsistent: it can only be removed/ }
  for (const kind of ['clear', 'enable', 'disable'] as const) {
    await t.rejects(editBitmap(image, 'b', [{ kind }]), code)
  }
  await t.rejects(editBitmap(image, 'b', [{ kind: 'merge', source: 'c' }]), code)
  await editBitmap(image, 'b', [{ kind: 'remove' }])
  t.match(await listBitmaps(image), [{ name: 'c', inconsistent: true, dirtyBytes: null }])
  await editBitmap(image, 'c', [{ kind: 'remove' }, { kind: 'add' }])
  t.match(await listBitmaps(image), [{ name: 'c', inconsistent: false, recording: true }])
  t.equal(qemuImgCheck(image).status, 0)
})
