import t from 'tap'
import { type MixedDisk, mixedLayout, scatteredLayout } from '../../../scripts/perf/layout.ts'

const MIB = 2 ** 20
const DISK: MixedDisk = {
  size: 1024 * MIB,
  dataBytes: 384 * MIB,
  smallExtents: 150,
  largest: 32 * MIB,
}

t.test('a mixed disk has its shares of data', async (t) => {
  const extents = mixedLayout(DISK)
  const sum = extents.reduce((total, extent) => total + extent.length, 0)
  t.equal(sum, DISK.dataBytes)
  t.ok(
    extents.every(({ offset, length }) => offset % 4096 === 0 && length % 4096 === 0),
    'whole blocks',
  )
  t.ok(
    extents.every(({ offset }, i) => i === 0 || offset > end(extents[i - 1])),
    'in order, a hole before each',
  )
  t.ok(end(extents.at(-1)!) <= DISK.size)
  t.ok(extents.every(({ length }) => length >= 4096 && length <= DISK.largest))
  t.ok(extents.filter(({ length }) => length <= MIB).length >= DISK.smallExtents)
  t.same(mixedLayout(DISK), extents, 'the same each time')
})

t.test('a scattered disk has its pieces apart', async (t) => {
  const disk = { size: 2 ** 40, blocks: 100, blockSize: 65536 }
  const extents = scatteredLayout(disk)
  t.equal(extents.length, 100)
  t.ok(extents.every(({ offset, length }) => offset % 65536 === 0 && length === 65536))
  t.ok(extents.every(({ offset }, i) => i === 0 || offset >= end(extents[i - 1])))
  t.ok(end(extents.at(-1)!) <= disk.size)
  t.same(scatteredLayout(disk), extents, 'the same each time')
  t.notSame(scatteredLayout(disk, 3), extents, 'other places for another seed')
})

function end({ offset, length }: { offset: number; length: number }): number {
  return offset + length
}
