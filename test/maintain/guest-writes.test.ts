/** A VM runs on images that we have edited, whose increments share tables of zeroes: QEMU, which does
 * not keep an image valid in which L1 entries share a table, writes until nothing of ours is left. */
import { copyFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  commitImage,
  diffToBitmap,
  editBitmap,
  fullBackup,
  incrementalBackup,
} from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { l2Offsets, sharedTables } from '../support/l1.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const K = 2 ** 10
const M = 2 ** 20
const SIZE = 16 * M
/** An L2 table maps 2 MiB. */
const CLUSTER = 4 * K

interface Images {
  dir: string
  at: (name: string) => string
}

/** A full backup, and an increment in which all but the first MiB was zeroed. */
async function backups(t: Test): Promise<Images> {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  const options = `cluster_size=${CLUSTER}`
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, at('source'), `${SIZE}`)
  qemuIo(at('source'), `write -P 1 0 ${SIZE}`)
  qemuImg('bitmap', '--add', '-g', '64k', at('source'), 'b')
  await fullBackup(at('source'), at('full'), { clusterSize: CLUSTER })
  qemuIo(at('source'), 'write -P 2 0 1M', `write -z 1M ${SIZE - M}`)
  await incrementalBackup(at('source'), at('inc'), {
    bitmap: 'b',
    backing: at('full'),
    clusterSize: CLUSTER,
  })
  t.ok(sharedTables(at('inc')) > 2, 'the increment shares tables')
  return { dir, at }
}

/** Lets QEMU write all over an image, a round at a time, and make and delete snapshots. */
function letGuestWrite(t: Test, image: string, seed: number): void {
  const random = randomNumbers(seed)
  const ours = l2Offsets(image)
  t.equal(sharedTables(image), 0, 'no two L1 entries name one table')
  const order = ours.map((_, i) => i).sort(() => random(3) - 1)
  for (let round = 0; round < 3; round++) {
    if (round === 1) qemuImg('snapshot', '-c', 's', image)
    const commands = order.flatMap((index) => {
      const start = index * 2 * M + random(400) * CLUSTER
      const length = (1 + random(40)) * 512
      const kinds = ['write -z', 'write -zu', 'discard']
      return [`${kinds[random(6)] ?? `write -P ${1 + random(250)}`} ${start} ${length}`]
    })
    // By parts: each is a VM that starts, and what it left is checked.
    for (let at = 0; at < commands.length; at += 3) {
      qemuIo(image, ...commands.slice(at, at + 3))
      t.match(qemuImgCheck(image), { status: 0 }, `round ${round}, ${at}`)
    }
    if (round === 2) qemuImg('snapshot', '-d', 's', image)
  }
  t.match(qemuImgCheck(image), { status: 0 }, 'without the snapshot')
}

t.test('an increment stays sound when a bitmap is added and a guest writes', async (t) => {
  const { at } = await backups(t)
  copyFileSync(at('inc'), at('before'))
  await editBitmap(at('inc'), 'new', [{ kind: 'add' }])
  t.equal(qemuImg('compare', at('inc'), at('before')), 'Images are identical.\n')
  letGuestWrite(t, at('inc'), 1)
})

t.test('a bitmap added to an increment with an internal snapshot', async (t) => {
  const { at } = await backups(t)
  qemuImg('snapshot', '-c', 'old', at('inc'))
  await editBitmap(at('inc'), 'new', [{ kind: 'add' }])
  letGuestWrite(t, at('inc'), 2)
  qemuImg('snapshot', '-d', 'old', at('inc'))
  t.match(qemuImgCheck(at('inc')), { status: 0 }, 'without the old snapshot')
})

t.test('a bitmap of what differs, added to an increment', async (t) => {
  const { at } = await backups(t)
  await diffToBitmap(at('inc'), at('full'), 'd')
  letGuestWrite(t, at('inc'), 3)
})

t.test('a base without a backing file gets no tables for zeroes', async (t) => {
  const { at } = await backups(t)
  qemuImg('convert', '-O', 'raw', at('inc'), at('expected'))
  await commitImage(at('inc'))
  t.equal(l2Offsets(at('full')).filter((offset) => offset !== 0).length, 1)
  t.equal(qemuImg('compare', at('full'), at('expected')), 'Images are identical.\n')
  letGuestWrite(t, at('full'), 4)
})

t.test('a base over a backing file gets tables of its own for zeroes', async (t) => {
  const { at } = await backups(t)
  qemuImg('convert', '-O', 'raw', at('inc'), at('expected'))
  const options = ['-o', `cluster_size=${CLUSTER}`, '-b', 'full', '-F', 'qcow2']
  qemuImg('create', '-q', '-f', 'qcow2', ...options, at('base'))
  qemuIo(at('base'), 'write -P 5 3M 5M')
  qemuImg('rebase', '-u', '-b', 'base', '-F', 'qcow2', at('inc'))
  await commitImage(at('inc'))
  t.equal(l2Offsets(at('base')).filter((offset) => offset !== 0).length, SIZE / (2 * M))
  t.equal(qemuImg('compare', at('base'), at('expected')), 'Images are identical.\n')
  letGuestWrite(t, at('base'), 5)
})

t.test('an increment that is committed to stays sound when a guest writes', async (t) => {
  const { at } = await backups(t)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'inc', '-F', 'qcow2', at('top'))
  qemuIo(at('top'), 'write -P 6 5M 100k', 'write -z 9M 64k')
  qemuImg('convert', '-O', 'raw', at('top'), at('expected'))
  await commitImage(at('top'))
  t.equal(qemuImg('compare', at('inc'), at('expected')), 'Images are identical.\n')
  letGuestWrite(t, at('inc'), 6)
})

t.test('every edit leaves whole clusters', async (t) => {
  const { at } = await backups(t)
  const create = ['create', '-q', '-f', 'qcow2']
  // QEMU puts the L1 table last, and does not fill up its cluster.
  qemuImg(...create, at('small'), '1M')
  t.not(statSync(at('small')).size % 65536, 0, 'as QEMU leaves it')
  qemuImg(...create, '-b', 'small', '-F', 'qcow2', at('over'))
  await commitImage(at('over'))
  t.equal(statSync(at('small')).size % 65536, 0, 'a commit of nothing')
  qemuImg(...create, at('other'), '1M')
  await editBitmap(at('other'), 'b', [{ kind: 'add' }])
  t.equal(statSync(at('other')).size % 65536, 0, 'a bitmap')
  await editBitmap(at('other'), 'b', [{ kind: 'remove' }])
  t.equal(statSync(at('other')).size % 65536, 0, 'its removal')
})
