import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  createSnapshot,
  fullBackup,
  incrementalBackup,
  listBitmaps,
  readBitmapChain,
} from '../../lib/index.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo, run } from '../support/qemu.ts'

/** A disk of 4 MiB with data, and bitmaps `b`, `c` that record and `old` that does not. */
function makeDisk(t: Test): string {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '4M')
  qemuIo(disk, 'write -P 1 0 1M')
  qemuImg('bitmap', '--add', disk, 'b')
  qemuImg('bitmap', '--add', '-g', '4k', disk, 'c')
  qemuImg('bitmap', '--add', '--disable', disk, 'old')
  return disk
}

t.test('the bitmaps that record go on, and QEMU writes into them', async (t) => {
  const disk = makeDisk(t)
  const overlay = join(t.testdirName, 'overlay.qcow2')
  t.strictSame(await createSnapshot(disk, overlay), {
    overlay,
    virtualSize: 4 * 2 ** 20,
    backing: 'disk.qcow2',
    bitmaps: ['b', 'c'],
    notes: [],
  })
  t.equal(qemuImgCheck(overlay).status, 0)
  t.equal(qemuImg('compare', disk, overlay), 'Images are identical.\n')
  const info = qemuImgInfo(overlay)
  t.equal(info['backing-filename'], 'disk.qcow2')
  t.equal(info['backing-filename-format'], 'qcow2')
  qemuIo(overlay, 'write -P 2 2M 5k')
  t.match(await listBitmaps(overlay), [
    { name: 'b', granularity: 65536, recording: true, dirtyBytes: 65536 },
    { name: 'c', granularity: 4096, recording: true, dirtyBytes: 8192 },
  ])
  const { bitmaps } = await readBitmapChain(overlay)
  t.strictSame(
    bitmaps.map(({ name, valid }) => [name, valid]),
    [
      ['b', true],
      ['c', true],
      ['old', false],
    ],
  )
  // And again, over the overlay.
  const next = join(t.testdirName, 'next.qcow2')
  t.strictSame((await createSnapshot(overlay, next, { clusterSize: 4096 })).bitmaps, ['b', 'c'])
  t.equal(qemuImgCheck(next).status, 0)
  t.equal(qemuImg('compare', overlay, next), 'Images are identical.\n')
})

t.test('a backup since the snapshot is that of the overlay', async (t) => {
  const disk = makeDisk(t)
  const at = (name: string) => join(t.testdirName, name)
  await fullBackup(disk, at('full'))
  qemuImg('bitmap', '--clear', disk, 'b')
  await createSnapshot(disk, at('overlay'))
  qemuIo(at('overlay'), 'write -P 3 100k 300k', 'write -z 512k 64k')
  await incrementalBackup(at('overlay'), at('inc'), { bitmap: 'b', backing: at('full') })
  t.equal(qemuImg('compare', at('overlay'), at('inc')), 'Images are identical.\n')
})

t.test('a snapshot over a bitmap that is not valid needs force', async (t) => {
  const disk = makeDisk(t)
  const at = (name: string) => join(t.testdirName, name)
  await createSnapshot(disk, at('top'))
  qemuImg('bitmap', '--disable', disk, 'b')
  const why = {
    code: 'BAD_BITMAP',
    message: /top: a bitmap is not valid along its chain: .*'b' is disabled/,
  }
  await t.rejects(createSnapshot(at('top'), at('new')), why)
  t.notOk(existsSync(at('new')))
  const forced = await createSnapshot(at('top'), at('new'), { force: true })
  t.strictSame(forced.bitmaps, ['c'])
  t.match(forced.notes, [/disk\.qcow2: bitmap 'b' is disabled/])
  t.match(await listBitmaps(at('new')), [{ name: 'c' }])

  run('qemu-io', ['-c', 'write 0 64k', '-c', 'abort', at('top')])
  await t.rejects(createSnapshot(at('top'), at('more')), {
    code: 'BAD_BITMAP',
    message: /inconsistent/,
  })
})

t.test('without bitmaps, over raw, and what is refused', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'raw', at('raw'), '1M')
  await t.rejects(createSnapshot(at('raw'), at('over')), { code: 'BAD_IMAGE' })
  const over = await createSnapshot(at('raw'), at('over'), { backingFormat: 'raw' })
  t.strictSame(over.bitmaps, [])
  t.equal(qemuImgInfo(at('over'))['backing-filename-format'], 'raw')
  await t.rejects(createSnapshot(at('over'), at('over')), { code: 'BAD_TARGET' })
  await t.rejects(createSnapshot(at('over'), at('raw')), { code: 'BAD_TARGET' })
  await t.rejects(createSnapshot(at('gone'), at('x')), { code: 'IO' })
  await createSnapshot(at('over'), at('next'))
  await t.rejects(createSnapshot(at('over'), at('next')), { code: 'TARGET_EXISTS' })
  t.strictSame(readdirSync(dir).sort(), ['next', 'over', 'raw'])
})
