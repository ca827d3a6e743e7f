import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, incrementalBackup, restore } from '../../lib/index.ts'
import { randomChanges } from '../support/changes.ts'
import { firstDifference } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

const SIZE = 24 * 2 ** 20
const ROUNDS = effort(2, 10)

/**
 * A guest writes, zeroes and trims through one export; each round is backed up through another,
 * read-only one that carries the bitmap of the round. The disk does not change while it is backed
 * up, so its content then is the point in time.
 */
for (const [clusterSize, granularity] of [
  [4096, 65536],
  [65536, 4096],
  [65536, 2 ** 20],
  [2 ** 21, 65536],
]) {
  const name = `a chain of ${ROUNDS} rounds over NBD: clusters of ${clusterSize}, granules of ${granularity}`
  t.test(name, async (t) => {
    const directory = t.testdir()
    const disk = join(directory, 'disk.qcow2')
    const backup = (round: number) => join(directory, `backup-${round}.qcow2`)
    qemuImg('create', '-q', '-f', 'qcow2', disk, String(SIZE))
    const daemon = await startStorageDaemon(t)
    await daemon.open('disk', disk)
    const guest = await daemon.export('disk', { name: 'guest', writable: true })
    const points: Buffer[] = []

    for (let round = 0; round <= ROUNDS; round++) {
      const seed = clusterSize + granularity + round
      qemuIo({ path: guest, format: 'raw' }, ...randomChanges(SIZE, 12, seed))
      const bitmap = `round-${round - 1}`
      const bitmaps = round > 0 ? [{ node: 'disk', name: bitmap }] : []
      const uri = await daemon.export('disk', { name: 'backup', bitmaps })
      const result =
        round === 0
          ? await fullBackup(uri, backup(0), { clusterSize })
          : await incrementalBackup(uri, backup(round), {
              bitmap,
              backing: backup(round - 1),
              clusterSize,
            })
      t.equal(result.dataBytes + result.zeroBytes + result.unchangedBytes, SIZE)
      const copy = join(directory, 'copy.raw')
      qemuImg('convert', '-f', 'raw', '-O', 'raw', uri, copy)
      points.push(readFileSync(copy))
      await daemon.unexport('backup')
      await daemon.addBitmap('disk', `round-${round}`, granularity)
    }

    for (const [round, content] of points.entries()) {
      t.equal(qemuImgCheck(backup(round)).status, 0, `check of ${round} is clean`)
      const restored = join(directory, 'restored.raw')
      await restore(backup(round), restored, { force: true })
      const difference = firstDifference(readFileSync(restored), content)
      t.equal(difference, undefined, `round ${round} is restored as it was`)
    }
  })
}
