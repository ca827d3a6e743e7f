import t from 'tap'
import { HostBounds } from '../../../lib/format/qcow2/bounds.ts'
import type { Qcow2Header } from '../../../lib/format/qcow2/header-fields.ts'
import type { Run } from '../../../lib/format/qcow2/tables.ts'

const C = 65536
const header = {
  clusterSize: C,
  l1TableOffset: 3 * C,
  l1Size: 2,
  refcountTableOffset: C,
  refcountTableClusters: 1,
  externalDataFile: false,
} as Qcow2Header
const SIZE = 10 * C + 1000
const bounds = new HostBounds(header, SIZE, SIZE)
const bad = (why: string) => ({ name: 'FormatError', code: 'BAD_IMAGE', message: why })

function data(offset: number, length: number): Run {
  return { kind: 'data', start: 2 ** 30, length, offset }
}

t.test('tables out of bounds are refused', async (t) => {
  bounds.requireTable(5 * C, 0)
  const at = (offset: number) => () => bounds.requireTable(offset, 0x20000000)
  const why = (rest: string) => bad(`guest offset 0x20000000: L2 table at ${rest}`)
  t.throws(at(5 * C + 512), why('0x50200 is unaligned'))
  t.throws(at(10 * C), why('0xa0000 reaches past the end of the file'))
  t.throws(at(11 * C), why('0xb0000 is past the end of the file'))
  t.throws(at(2 ** 55), why('0x80000000000000 is past the end of the file'))
  t.throws(at(0), why('0x0 lies over the header'))
  t.throws(at(C), why('0x10000 lies over the refcount table'))
  t.throws(at(3 * C), why('0x30000 lies over the L1 table'))
})

t.test('data clusters in metadata or past the end are refused', async (t) => {
  const sound = [data(4 * C, 6 * C), data(2 * C, C)]
  t.equal(bounds.checked(sound), sound, 'passes through')
  const at = (run: Run) => () => bounds.checked([data(5 * C, C), run])
  t.throws(at(data(0, C)), bad('guest offset 0x40000000: data cluster at 0x0 lies over the header'))
  t.throws(
    at(data(2 * C, 2 * C)),
    bad('guest offset 0x40010000: data cluster at 0x30000 lies over the L1 table'),
  )
  t.throws(
    at(data(9 * C, 3 * C)),
    bad('guest offset 0x40020000: data cluster at 0xb0000 is past the end of the file'),
  )
  t.throws(
    at(data(2 ** 50, C)),
    bad('guest offset 0x40000000: data cluster at 0x4000000000000 is past the end of the file'),
  )
})

t.test('the end of the file cuts the last cluster, whose rest is zero', async (t) => {
  const start = 2 ** 30
  t.same(bounds.checked([data(9 * C, 2 * C)]), [
    { kind: 'data', start, length: C + 1000, offset: 9 * C },
    { kind: 'zero', start: start + C + 1000, length: C - 1000 },
  ])
  t.same(bounds.checked([data(10 * C + 2048, 512)]), [{ kind: 'zero', start, length: 512 }])
})

t.test('compressed clusters in metadata or past the end are refused', async (t) => {
  const stream = (offset: number, size: number): Run => ({
    kind: 'compressed',
    start: 0,
    length: C,
    offset,
    size,
    within: 0,
  })
  t.same(bounds.checked([stream(10 * C + 900, 1024)]), [stream(10 * C + 900, 100)])
  t.throws(
    () => bounds.checked([stream(SIZE, 512)]),
    bad('guest offset 0x0: compressed cluster at 0xa03e8 is past the end of the file'),
  )
  t.throws(
    () => bounds.checked([stream(100, 512)]),
    bad('guest offset 0x0: compressed cluster at 0x64 lies over the header'),
  )
})

t.test('in a data file there is no metadata, and its own end counts', async (t) => {
  const external = new HostBounds({ ...header, externalDataFile: true }, SIZE, 2 * C)
  t.same(external.checked([data(0, 2 * C)]), [data(0, 2 * C)])
  t.throws(() => external.checked([data(2 * C, C)]), { code: 'BAD_IMAGE' })
})
