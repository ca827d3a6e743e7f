/** A disk that goes on in overlays: its bitmap is that of all images that have it. */
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  commitImage,
  createSnapshot,
  fullBackup,
  incrementalBackup,
  openSource,
  restore,
} from '../../lib/index.ts'
import { firstDifference } from '../support/disks.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const AUTOCLEAR = 88

/** Checks that a backup with its chain is sound, and holds what the disk does. */
async function same(t: Test, backup: string, disk: string): Promise<void> {
  t.equal(qemuImgCheck(backup).status, 0, `${backup}: check`)
  t.equal(qemuImg('compare', backup, disk), 'Images are identical.\n', backup)
  const [ours, theirs] = [`${backup}.raw`, `${backup}.disk`]
  await restore(backup, ours)
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', disk, theirs)
  t.equal(firstDifference(ours, theirs), undefined, `${backup}: restored`)
}

t.test('base, two checkpoints, overlay, two checkpoints, overlay, checkpoint', async (t) => {
  for (const style of ['one bitmap is active', 'all are active']) {
    await t.test(style, async (t) => {
      const dir = t.testdir()
      const at = (name: string) => join(dir, name)
      let disk = at('base')
      let writes = 0
      let last: { bitmap: string; backing: string } | undefined
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', disk, '8M')
      const write = () => {
        const w = ++writes
        qemuIo(
          disk,
          `write -P ${w} ${w * 300}k 100k`,
          `write -z ${w * 70}k 30k`,
          `write -P ${w} 0 9k`,
        )
      }
      /** A backup since the last one, and the bitmap for the next. */
      const checkpoint = async (name: string) => {
        write()
        const target = at(`backup-${name}`)
        if (last) {
          await incrementalBackup(disk, target, last)
          // From the first checkpoint's bitmap too, which still records.
          if (style === 'all are active' && last.bitmap !== 'c1') {
            await incrementalBackup(disk, at(`since-c1-${name}`), {
              bitmap: 'c1',
              backing: at('backup-c1'),
            })
            await same(t, at(`since-c1-${name}`), disk)
          }
        } else {
          await fullBackup(disk, target)
        }
        await same(t, target, disk)
        qemuImg('bitmap', '--add', '-g', name === 'c3' ? '4k' : '64k', disk, name)
        if (last && style === 'one bitmap is active')
          qemuImg('bitmap', '--disable', disk, last.bitmap)
        last = { bitmap: name, backing: target }
        write()
      }
      const overlay = async (name: string) => {
        await createSnapshot(disk, at(name))
        disk = at(name)
        write()
      }
      await checkpoint('c1')
      await checkpoint('c2')
      await overlay('overlay1')
      await checkpoint('c3')
      await checkpoint('c4')
      await overlay('overlay2')
      await checkpoint('c5')
      write()
      await incrementalBackup(disk, at('backup-last'), last!)
      await same(t, at('backup-last'), disk)

      /** Brings the disk down into the image below, which is the disk from then on. */
      const commit = async (below: string) => {
        await commitImage(disk, { delete: true })
        t.notOk(existsSync(disk))
        disk = at(below)
        t.equal(qemuImgCheck(disk).status, 0)
        const name = `after-${below}`
        // Nothing was written since.
        await incrementalBackup(disk, at(`committed-${below}`), last!)
        await same(t, at(`committed-${below}`), disk)
        if (style === 'all are active') {
          const options = { bitmap: 'c1', backing: at('backup-c1') }
          await incrementalBackup(disk, at(`c1-committed-${below}`), options)
          await same(t, at(`c1-committed-${below}`), disk)
        }
        await checkpoint(name)
      }
      await commit('overlay1')
      await commit('base')
      write()
      await incrementalBackup(disk, at('backup-end'), last!)
      await same(t, at('backup-end'), disk)
    })
  }
})

t.test('a chain whose bitmap lost writes is refused', async (t) => {
  const cases: [string, (mid: string, base: string) => void, RegExp][] = [
    [
      'a gap',
      (mid) => qemuImg('bitmap', '--remove', mid, 'b'),
      /mid: has no bitmap 'b', but .*base below it has/,
    ],
    [
      'disabled below',
      (_mid, base) => qemuImg('bitmap', '--disable', base, 'b'),
      /base: bitmap 'b' is disabled/,
    ],
    [
      'in use below',
      (mid) => run('qemu-io', ['-c', 'write 0 64k', '-c', 'abort', mid]),
      /mid: bitmap 'b' is inconsistent/,
    ],
    [
      'out of date below',
      (_mid, base) => poke(base, AUTOCLEAR, peek64(base, AUTOCLEAR) & ~1n),
      /base: bitmap 'b' is out of date/,
    ],
  ]
  for (const [name, damage, message] of cases) {
    await t.test(name, async (t) => {
      const dir = t.testdir()
      const at = (file: string) => join(dir, file)
      qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M')
      await fullBackup(at('base'), at('full'))
      qemuImg('bitmap', '--add', at('base'), 'b')
      await createSnapshot(at('base'), at('mid'))
      await createSnapshot(at('mid'), at('top'))
      damage(at('mid'), at('base'))
      const options = { bitmap: 'b', backing: at('full') }
      await t.rejects(incrementalBackup(at('top'), at('inc'), options), {
        code: 'BAD_BITMAP',
        message,
        report: { name: 'b', valid: false, images: [{}, {}, {}] },
      })
      t.notOk(existsSync(at('inc')))
    })
  }
})

t.test('overlays of other sizes than their backing file', async (t) => {
  const dir = t.testdir()
  const at = (file: string) => join(dir, file)
  for (const size of ['2M', '6M']) {
    qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M')
    await fullBackup(at('base'), at('full'), { force: true })
    qemuImg('bitmap', '--add', at('base'), 'b')
    qemuIo(at('base'), 'write -P 1 1M 64k', 'write -P 1 3M 64k')
    await createSnapshot(at('base'), at('top'), { force: true })
    qemuImg('resize', '-q', '--shrink', at('top'), size)
    qemuIo(at('top'), 'write -P 2 1500k 64k')
    const source = await openSource(at('top'), { bitmap: 'b' })
    await source.close()
    await incrementalBackup(at('top'), at('inc'), { bitmap: 'b', backing: at('full'), force: true })
    t.equal(qemuImg('compare', at('inc'), at('top')), 'Images are identical.\n', size)
    renameSync(at('inc'), at(`inc-${size}`))
  }
})
