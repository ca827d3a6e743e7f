/**
 * A program that keeps no bitmaps wrote to an image: nothing of ours forgets that its bitmaps are out of
 * date, or a bitmap of an overlay would seem to be valid.
 */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { diskOf } from '../../lib/image/steps.ts'
import {
  type BitmapOperation,
  commitImage,
  createSnapshot,
  diffToBitmap,
  editBitmap,
  listBitmaps,
  readBitmapChain,
  rebaseImage,
} from '../../lib/index.ts'
import { editBitmap as edit } from '../../lib/maintain/edit-bitmap.ts'
import { runCli } from '../support/cli.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo, run } from '../support/qemu.ts'
import { counting, Stopped, stopsAt } from '../support/stopping.ts'

const SIZE = 24
const AUTOCLEAR = 88
const EXTENSION = Buffer.from('2385287500000018', 'hex')
/** Where the extensions of a header of version 2 are. */
const V2_EXTENSIONS = 72

/** What a program does that knows nothing of bitmaps and writes. */
function writeAsOldProgram(image: string): void {
  poke(image, AUTOCLEAR, peek64(image, AUTOCLEAR) & ~1n)
}

/** An overlay and its base; both had `x`, and that of the base is out of date, as is its `y`. */
function makeChain(t: Test): { overlay: string; base: string; at(name: string): string } {
  const at = (name: string) => join(t.testdirName, name)
  t.testdir()
  const [overlay, base] = [at('overlay'), at('base')]
  qemuImg('create', '-q', '-f', 'qcow2', base, '4M')
  qemuIo(base, 'write -P 1 0 1M')
  for (const name of ['x', 'y']) qemuImg('bitmap', '--add', base, name)
  qemuIo(base, 'write -P 2 0 64k')
  writeAsOldProgram(base)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', overlay)
  qemuImg('bitmap', '--add', overlay, 'x')
  return { overlay, base, at }
}

async function isValid(top: string, name = 'x'): Promise<boolean | undefined> {
  return (await readBitmapChain(top)).bitmaps.find((one) => one.name === name)?.valid
}

/** The bitmaps that QEMU finds, with their flags. */
function qemuBitmaps(image: string): string[] {
  const found = qemuImgInfo(image)['format-specific']?.data.bitmaps as
    | { name: string; flags: string[] }[]
    | undefined
  return (found ?? []).map(({ name, flags }) => [name, ...flags].join(' '))
}

/** Its clusters that were lost to the old program may be leaked. */
function requireSound(t: Test, image: string): void {
  const { status, report } = qemuImgCheck(image)
  t.ok(status === 0 || status === 3, `check ends with ${status}`)
  t.equal(report.corruptions ?? 0, 0)
}

/** Where the bitmaps extension of an image is. */
function extensionOf(image: string): number {
  for (let at = 104; at < 4096; at += 8) {
    if (peek64(image, at) === EXTENSION.readBigUInt64BE()) return at
  }
  throw new Error(`${image}: no bitmaps extension`)
}

t.test('edits keep them as inconsistent, as which QEMU knows them', async (t) => {
  const { overlay, base, at } = makeChain(t)
  t.equal(await isValid(overlay), false, 'at first')
  const edits: Record<string, () => Promise<unknown>> = {
    add: () => editBitmap(base, 'z', [{ kind: 'add' }]),
    'add and remove': () => editBitmap(base, 'z', [{ kind: 'add' }, { kind: 'remove' }]),
    diff: () => diffToBitmap(base, at('as-it-was'), 'z', { enable: true }),
  }
  copyFileSync(base, at('as-it-was'))
  for (const [name, run] of Object.entries(edits)) {
    await t.test(name, async (t) => {
      copyFileSync(at('as-it-was'), base)
      await run()
      const z = name === 'add and remove' ? [] : ['z auto']
      t.strictSame(qemuBitmaps(base), ['x in-use auto', 'y in-use auto', ...z])
      requireSound(t, base)
      t.equal(await isValid(overlay), false)
      t.equal(qemuImg('compare', base, at('as-it-was')), 'Images are identical.\n')
      qemuIo(base, 'write -P 3 2M 64k')
      requireSound(t, base)
      t.equal(await isValid(overlay), false, 'QEMU has written to it')
    })
  }
  await t.test('they are removed as any inconsistent ones', async (t) => {
    qemuImg('bitmap', '--remove', base, 'x')
    await editBitmap(base, 'y', [{ kind: 'remove' }])
    t.strictSame(qemuBitmaps(base), ['z auto'])
    requireSound(t, base)
    t.equal(await isValid(overlay), true, 'that was asked for')
  })
})

t.test('bitmap says of them what qemu-img says', async (t) => {
  const { base, at } = makeChain(t)
  const commands: [string[], string[]][] = [
    [
      ['--add', 'z'],
      ['x in-use auto', 'y in-use auto', 'z auto'],
    ],
    [
      ['--add', 'x'],
      ['y in-use auto', 'x auto'],
    ],
    [
      ['--add', '--disable', 'x'],
      ['y in-use auto', 'x'],
    ],
    [['--remove', 'x'], []],
    [['--clear', 'x'], []],
    [['--enable', 'x'], []],
    [['--merge', 'y', 'x'], []],
  ]
  for (const [args, left] of commands) {
    const [ours, theirs] = [at('ours'), at('theirs')]
    for (const copy of [ours, theirs]) copyFileSync(base, copy)
    const bitmap = (image: string) => ['bitmap', ...args.slice(0, -1), image, args.at(-1)!]
    const expected = run('qemu-img', bitmap(theirs))
    const { status, stdout, stderr } = await runCli(bitmap(ours))
    t.equal(status, expected.status, args.join(' '))
    t.equal(stdout, expected.stdout)
    t.equal(stderr, expected.stderr.replace(/^qemu-img: warning: .*\n.*to fix\./, ''))
    t.strictSame(qemuBitmaps(ours), left, args.join(' '))
    requireSound(t, ours)
  }
})

t.test('an operation on one says that it is out of date; to remove all forgets them', async (t) => {
  const { overlay, base } = makeChain(t)
  const why = "its bitmap 'x' is out of date: add it again, or remove all"
  await t.rejects(editBitmap(base, 'x', [{ kind: 'remove' }]), { code: 'BAD_BITMAP', why })
  await editBitmap(base, '', [{ kind: 'remove-all' }])
  t.strictSame(qemuBitmaps(base), [])
  t.equal(await isValid(overlay), true)
})

t.test('a disk that the old program made larger', async (t) => {
  const at = (name: string) => join(t.testdirName, name)
  t.testdir()
  const [overlay, base] = [at('overlay'), at('base')]
  // A bit stands for 64 KiB, and a cluster of a bitmap for 32 GiB. The L1 table is large enough from the start.
  qemuImg('create', '-q', '-f', 'qcow2', base, '64G')
  poke(base, SIZE, 4n * 2n ** 20n)
  for (const name of ['x', 'y']) qemuImg('bitmap', '--add', base, name)
  poke(base, SIZE, 2n ** 36n)
  writeAsOldProgram(base)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', overlay)
  qemuImg('bitmap', '--add', overlay, 'x')
  t.equal(await isValid(overlay), false)
  await editBitmap(base, 'z', [{ kind: 'add' }])
  t.strictSame(qemuBitmaps(base), ['x in-use auto', 'y in-use auto', 'z auto'])
  requireSound(t, base)
})

t.test('where their names are lost, no bitmap of the chain is valid', async (t) => {
  const { overlay, base } = makeChain(t)
  poke(base, Number(peek64(base, extensionOf(base) + 24)), Buffer.alloc(64, 0xee))
  const { bitmaps } = await readBitmapChain(overlay)
  const lost =
    `${base}: its bitmaps are out of date: a program that keeps no bitmaps wrote to the image, and ` +
    "their names are lost: 'x' may have been one of them; take a full backup, and remove all " +
    'bitmaps of the image'
  t.match(bitmaps, [{ name: 'x', valid: false, reasons: [lost] }])
  const add: BitmapOperation[] = [{ kind: 'add' }]
  const why =
    'its bitmaps are out of date, and their names are lost; remove all of its bitmaps first'
  await t.rejects(editBitmap(base, 'z', add), { code: 'BAD_BITMAP', what: base, why })
  t.equal(await isValid(overlay), false)
  await editBitmap(base, '', [{ kind: 'remove-all' }])
  await editBitmap(base, 'z', add)
  t.strictSame(qemuBitmaps(base), ['z auto'])
  requireSound(t, base)
})

t.test('an image of version 2 that had some', async (t) => {
  const { overlay, base } = makeChain(t)
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', base, '4M')
  const directory = Buffer.alloc(24)
  directory.writeUInt32BE(1)
  directory.writeBigUInt64BE(32n, 8)
  directory.writeBigUInt64BE(65536n, 16)
  poke(base, V2_EXTENSIONS, Buffer.concat([EXTENSION, directory, Buffer.alloc(8)]))
  t.equal(await isValid(overlay), false)
})

t.test('commit: they stay, and new ones go on in the base', async (t) => {
  const { overlay, base, at } = makeChain(t)
  const top = at('top')
  await createSnapshot(overlay, top, { force: true })
  t.strictSame(await listBitmaps(top), [], 'that of the overlay is not valid')
  await editBitmap(top, 'z', [{ kind: 'add' }])
  qemuIo(top, 'write -P 5 3M 64k')
  const { notes } = await commitImage(top, { base: overlay })
  t.strictSame(notes, [])
  t.equal(await isValid(overlay, 'z'), true)
  t.equal(await isValid(overlay, 'x'), false)
  const ended = await commitImage(overlay)
  t.match(ended.notes, [/base: bitmap 'x' is out of date: .*; take a full backup and add it again/])
  t.strictSame(qemuBitmaps(base), ['x in-use auto', 'y in-use auto', 'z auto'])
  requireSound(t, base)
  t.equal(qemuImg('compare', base, overlay), 'Images are identical.\n')
})

t.test('snapshot, rebase, commit without bitmaps and check -r keep them as they are', async (t) => {
  const { overlay, base, at } = makeChain(t)
  const isStale = (image: string) =>
    (peek64(image, AUTOCLEAR) & 1n) === 0n && extensionOf(image) > 0
  await t.rejects(createSnapshot(base, at('new')), { code: 'BAD_BITMAP' })
  await createSnapshot(base, at('new'), { force: true })
  t.ok(isStale(base), 'snapshot')
  qemuImg('create', '-q', '-f', 'qcow2', at('other'), '4M')
  await rebaseImage(base, { file: 'other', format: 'qcow2' })
  await rebaseImage(base, { file: 'other', format: 'qcow2' }, { unsafe: true })
  t.ok(isStale(base), 'rebase')
  qemuIo(at('new'), 'write -P 7 2M 64k')
  await commitImage(at('new'))
  t.ok(isStale(base), 'commit')
  t.equal((await runCli(['check', '-r', 'leaks', base])).status, 0)
  t.equal((await runCli(['check', '-r', 'all', base])).status, 0)
  t.ok(isStale(base), 'check -r')
  t.equal(await isValid(overlay), false)
})

t.test('an edit that ends anywhere', async (t) => {
  const { overlay, base, at } = makeChain(t)
  copyFileSync(base, at('as-it-was'))
  let stops = 0
  for (let n = 1; ; n++) {
    copyFileSync(at('as-it-was'), base)
    const count = stopsAt(n)
    try {
      await edit(base, 'z', [{ kind: 'add' }], {
        disk: ({ file }) => counting(diskOf(file.handle), count),
      })
      break
    } catch (error) {
      if (!(error instanceof Stopped)) throw error
    }
    stops++
    t.equal(await isValid(overlay), false, `stopped at ${n}`)
    requireSound(t, base)
    await editBitmap(base, 'again', [{ kind: 'add' }])
    t.equal(await isValid(overlay), false, `stopped at ${n}, edited again`)
    requireSound(t, base)
  }
  t.ok(stops >= 6, `${stops} stops`)
})
