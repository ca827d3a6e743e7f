/** `bitmap` beside that of the installed qemu-img: what is printed, and what becomes of the image. */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ours, theirs } from '../support/parity.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

/** Makes an image with bitmaps `b` and `c` (disabled), one of another size, and one of version 2. */
function setUp(t: Test): string {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('q'), '1M')
  qemuImg('bitmap', '--add', at('q'), 'b')
  qemuIo(at('q'), 'write -P 1 64k 100k')
  qemuImg('bitmap', '--add', '--disable', '-g', '4k', at('q'), 'c')
  qemuImg('create', '-q', '-f', 'qcow2', at('other'), '1M')
  qemuImg('bitmap', '--add', '-g', '32k', at('other'), 'o')
  qemuIo(at('other'), 'write -P 1 900k 1k')
  qemuImg('create', '-q', '-f', 'qcow2', at('large'), '2M')
  qemuImg('bitmap', '--add', at('large'), 'o')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', at('old'), '1M')
  return dir
}

/** The bitmaps of an image as QEMU has them. */
function bitmapsOf(image: string): unknown {
  const info = JSON.parse(qemuImg('info', '--output=json', image))
  return info['format-specific'].data.bitmaps ?? []
}

/** What holds in an image's bitmaps, as our extents have it: judged elsewhere against QEMU. */
async function bitsOf(dir: string, image: string): Promise<string> {
  return (await ours(['bitmap', 'list', '--json', image], dir)).stdout
}

const SAME: string[][] = [
  [],
  ['--add'],
  ['--add', 'q'],
  ['q', 'b'],
  ['--add', 'q', 'new'],
  ['--add', '-g', '8k', 'q', 'new'],
  ['--add', '-g', '0', 'q', 'new'],
  ['--add', '--disable', 'q', 'new'],
  ['--add', '--merge', 'b', '--merge', 'c', 'q', 'new'],
  ['--add', '--merge', 'o', '-b', 'other', '-F', 'qcow2', 'q', 'new'],
  ['--merge', 'o', '-b', 'other', 'q', 'b'],
  ['--merge', 'b', 'q', 'c'],
  ['--merge', 'b', 'q', 'b'],
  ['--clear', 'q', 'b'],
  ['--enable', 'q', 'c'],
  ['--disable', '--enable', '--disable', 'q', 'b'],
  ['--remove', 'q', 'b'],
  ['--remove', '--add', 'q', 'b'],
  ['--add', '--remove', 'q', 'new'],
  ['--add', 'q', 'b'],
  ['--add', '-g', '3', 'q', 'new'],
  ['--add', '-g', '256', 'q', 'new'],
  ['--add', '-g', '4G', 'q', 'new'],
  ['--add', '-g', '12x', 'q', 'new'],
  ['--add', '-g', '', 'q', 'new'],
  ['--add', 'q', 'new', 'more'],
  ['--add', 'q', ''],
  ['--remove', 'q', 'gone'],
  ['--clear', 'q', 'gone'],
  ['--enable', '-g', '64k', 'q', 'b'],
  ['--enable', '-F', 'qcow2', 'q', 'b'],
  ['--enable', '-b', 'other', 'q', 'b'],
  ['--merge', 'gone', 'q', 'b'],
  ['--merge', 'o', '-b', 'gone', 'q', 'b'],
  ['--merge', 'o', '-b', '', '-F', 'qcow2', 'q', 'b'],
  ['--merge', 'o', '-b', '.', 'q', 'b'],
  ['--merge', 'o', '-b', 'large', '-F', 'qcow2', 'q', 'b'],
  ['--merge', 'o', '-b', 'other', '-F', 'raw', 'q', 'b'],
  ['--merge', 'b', '-b', 'q', 'q', 'c'],
  ['--add', 'gone', 'b'],
  ['--add', '', 'b'],
  ['--add', '-f', 'qcow2', 'old', 'gone', 'b'],
  ['--remove', 'old', 'b'],
  ['--add', '-U', 'q', 'new'],
  ['--foo', 'q', 'b'],
  ['--merge'],
]

t.test('bitmap prints and does what qemu-img bitmap does', async (t) => {
  const dir = setUp(t)
  const [q, kept] = [join(dir, 'q'), join(dir, 'kept')]
  copyFileSync(q, kept)
  for (const args of SAME) {
    copyFileSync(kept, q)
    const expected = theirs(['bitmap', ...args], dir)
    const [bitmaps, bits] = [bitmapsOf(q), await bitsOf(dir, 'q')]
    copyFileSync(kept, q)
    const told = args.join(' ')
    t.strictSame(await ours(['bitmap', ...args], dir), expected, told)
    t.equal(qemuImgCheck(q).status, 0, `${told}: check`)
    // Where they fail at a later step, qemu-img keeps what the earlier ones did; we do not.
    if (expected.status === 0) {
      t.strictSame(bitmapsOf(q), bitmaps, `${told}: bitmaps`)
      t.equal(await bitsOf(dir, 'q'), bits, `${told}: bits`)
    }
  }
})

t.test('an inconsistent bitmap can only be removed', async (t) => {
  const dir = setUp(t)
  run('qemu-io', ['-c', 'write 0 64k', '-c', 'abort', join(dir, 'q')])
  for (const args of [
    ['--clear', 'q', 'b'],
    ['--enable', 'q', 'b'],
    ['--merge', 'c', 'q', 'b'],
    ['--add', 'q', 'b'],
  ]) {
    t.strictSame(
      await ours(['bitmap', ...args], dir),
      theirs(['bitmap', ...args], dir),
      args.join(' '),
    )
  }
  t.equal((await ours(['bitmap', '--remove', 'q', 'b'], dir)).status, 0)
})

t.test('bitmap list prints each bitmap, or JSON', async (t) => {
  const dir = setUp(t)
  const told = await ours(['bitmap', 'list', 'q'], dir)
  t.strictSame(told, {
    status: 0,
    stdout: 'b: recording, 64 KiB a bit, 128 KiB dirty\nc: disabled, 4 KiB a bit, 0 B dirty\n',
    stderr: '',
  })
  t.strictSame(JSON.parse((await ours(['bitmap', 'list', '--json', 'q'], dir)).stdout)[0], {
    name: 'b',
    granularity: 65536,
    recording: true,
    inconsistent: false,
    dirtyBytes: 131072,
  })
  t.equal((await ours(['bitmap', 'list'], dir)).status, 1)
})

t.test('bitmap show prints the runs of a bitmap', async (t) => {
  const dir = setUp(t)
  const told = await ours(['bitmap', 'show', 'q', 'b'], dir)
  t.strictSame([told.status, told.stderr], [0, ''])
  t.strictSame(JSON.parse(told.stdout), [
    { start: 0, length: 65536, dirty: false },
    { start: 65536, length: 131072, dirty: true },
    { start: 196608, length: 2 ** 20 - 196608, dirty: false },
  ])
  t.equal((await ours(['bitmap', 'show', 'q'], dir)).status, 1)
  await t.rejects(ours(['bitmap', 'show', 'q', 'gone'], dir), { code: 'BAD_BITMAP' })
})
