import { join } from 'node:path'
import t from 'tap'
import { makeMapped, mappedClusters } from '../../../scripts/perf/mapped-image.ts'
import { qemuImgCheck, qemuImgMap } from '../../support/qemu.ts'

t.test('an image of tables only is sound, and maps what it is said to', async (t) => {
  const path = join(t.testdir(), 'image')
  const disk = { size: 2 ** 30, perTable: 1024, run: 16 }
  await makeMapped(path, disk, new AbortController().signal)
  const { status, report } = qemuImgCheck(path)
  t.equal(status, 0)
  t.equal(mappedClusters(disk), 2048)
  t.equal(report['allocated-clusters'], 2048)
  const stored = qemuImgMap(path).filter(({ offset }) => offset !== undefined)
  t.equal(stored.length, 128)
  t.ok(stored.every(({ start, length }, i) => start === i * 2 ** 23 && length === 2 ** 20))
})
