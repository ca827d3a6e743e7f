/** An image in the middle of a chain that is shorter than the disk hides what those below it hold. */
import { join } from 'node:path'
import t from 'tap'
import {
  commitImage,
  createSnapshot,
  fullBackup,
  incrementalBackup,
  readBitmap,
  readBitmapChain,
} from '../../lib/index.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

const M = 2 ** 20

t.test('what lies past the end of a shorter image counts as changed', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '8M')
  qemuIo(at('base'), 'write -P 1 0 8M')
  qemuImg('bitmap', '--add', at('base'), 'b')
  await fullBackup(at('base'), at('full'))
  await createSnapshot(at('base'), at('mid'))
  qemuImg('resize', '-q', '--shrink', at('mid'), '4M')
  qemuIo(at('mid'), 'write -P 2 1M 64k')
  await createSnapshot(at('mid'), at('top'))
  qemuImg('resize', '-q', at('top'), '8M')
  qemuIo(at('top'), 'write -P 3 2M 64k')

  const { bitmaps } = await readBitmapChain(at('top'))
  t.match(bitmaps, [{ name: 'b', valid: true }])
  t.match(bitmaps[0].notes, [
    /mid: its disk ends at 4194304, before the end of the disk at 8388608/,
  ])

  const { notes } = await incrementalBackup(at('top'), at('inc'), {
    bitmap: 'b',
    backing: at('full'),
  })
  t.match(notes, [/mid: its disk ends at 4194304/])
  t.equal(qemuImg('compare', at('inc'), at('top')), 'Images are identical.\n')

  await commitImage(at('top'), { base: at('base') })
  const dirty: [number, number][] = []
  await readBitmap(at('base'), 'b', (runs) => {
    for (const { start, length, dirty: is } of runs) if (is) dirty.push([start, length])
  })
  t.same(dirty, [
    [M, 64 * 1024],
    [2 * M, 64 * 1024],
    [4 * M, 4 * M],
  ])
})
