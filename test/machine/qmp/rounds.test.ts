import { join } from 'node:path'
import t from 'tap'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { startWriting } from '../../support/guest-writer.ts'
import { qemuIo } from '../../support/qemu.ts'
import {
  backUp,
  leftBy,
  makeImage,
  newRun,
  readByNbdcopy,
  requireSame,
} from '../../support/qmp-point.ts'
import { unixUri } from '../../support/server.ts'
import { startStorageDaemon } from '../../support/storage-daemon.ts'

const SIZE = 32 * 2 ** 20

t.test('rounds of backups while guests write to two disks', async (t) => {
  const directory = t.testdir()
  const daemon = await startStorageDaemon(t)
  const names = ['a', 'b']
  for (const name of names) {
    const options = name === 'b' ? ['-o', 'cluster_size=2M'] : []
    const image = makeImage(join(directory, `${name}.qcow2`), `${SIZE}`, ...options)
    qemuIo(image, 'write -P 1 0 8M', 'write -P 2 16M 1M')
    await daemon.open(name, image)
    const guest = await daemon.export(name, { name: `guest-${name}`, writable: true })
    await startWriting(t, guest, SIZE, name.charCodeAt(0)).hasWritten()
  }
  const machine = await openQmpMachine(daemon.monitor, { nbdServer: unixUri(daemon.socket) })
  t.teardown(() => machine.close())
  t.equal(machine.title, `qmp:${daemon.monitor}`)
  for (let round = 0; round < 4; round++) {
    const checkpoint = `point${round}`
    const since = round > 0 ? `point${round - 1}` : undefined
    const run = newRun()
    const point = await machine.freeze({
      disks: names.map((name) => ({ name, since, checkpoint })),
      run,
      point: checkpoint,
    })
    t.strictSame(await machine.leftovers(), [], 'what a run uses that is alive is not left')
    for (const disk of point.disks) {
      const path = (r: number) => join(directory, `${disk.name}.${r}.backup`)
      await backUp(disk, path(round), round > 0 ? path(round - 1) : undefined)
      requireSame(t, path(round), readByNbdcopy(disk, join(directory, 'point.raw')))
      t.strictSame(disk.checkpoint, { name: checkpoint, granularity: 65536 })
    }
    t.equal(point.lost.aborted, false)
    t.strictSame(await point.succeed({ remove: since === undefined ? [] : [since] }), [])
    for (const { bitmaps } of await machine.disks()) {
      t.strictSame(
        bitmaps.map(({ name, valid }) => [name, valid]),
        [[checkpoint, true]],
      )
    }
    t.strictSame(await machine.leftovers(), [])
    t.strictSame(await leftBy(daemon.qmp, run, directory), [])
  }
})
