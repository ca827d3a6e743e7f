import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSource } from '../../lib/source/open-source.ts'
import { qemuImgMap } from '../support/qemu.ts'
import { contentOf, extentsOf, mappingsOf } from '../support/read-source.ts'

const MiB = 2 ** 20

/** A file of `size` bytes with 64 KiB of data at each of `offsets`. */
function sparse(path: string, size: number, offsets: number[]): string {
  const fd = openSync(path, 'w')
  for (const offset of offsets) writeSync(fd, Buffer.alloc(65536, 0x5a), 0, 65536, offset)
  ftruncateSync(fd, size)
  closeSync(fd)
  return path
}

t.test('data and holes are where the file system says', async (t) => {
  const path = sparse(join(t.testdir(), 'disk.raw'), 64 * MiB, [0, 5 * MiB, 64 * MiB - 65536])
  const source = await openSource(path)
  t.teardown(() => source.close())
  t.match(source, { name: path, format: 'raw', size: 64 * MiB })
  t.equal(source.stores.length, 1)
  const data = { zero: false, hole: false }
  const hole = { zero: true, hole: true }
  t.same(await extentsOf(source), [
    { start: 0, length: 65536, ...data },
    { start: 65536, length: 5 * MiB - 65536, ...hole },
    { start: 5 * MiB, length: 65536, ...data },
    { start: 5 * MiB + 65536, length: 59 * MiB - 2 * 65536, ...hole },
    { start: 64 * MiB - 65536, length: 65536, ...data },
  ])
  const map = qemuImgMap(path, 'raw').map(({ start, length, zero }) => ({ start, length, zero }))
  t.same(
    (await extentsOf(source)).map(({ start, length, zero }) => ({ start, length, zero })),
    map,
  )
})

t.test('more extents than are asked for at a time are all read', async (t) => {
  const offsets = Array.from({ length: 3000 }, (_, i) => i * 131072)
  const path = sparse(join(t.testdir(), 'disk.raw'), 3000 * 131072, offsets)
  const source = await openSource(path)
  t.teardown(() => source.close())
  const extents = await extentsOf(source)
  t.equal(extents.length, 6000)
  t.ok(extents.every((e, i) => e.start === i * 65536 && e.zero === (i % 2 === 1)))
})

t.test('a size that is no multiple of a sector is rounded up', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, Buffer.alloc(1000, 1))
  const source = await openSource(path)
  t.teardown(() => source.close())
  t.equal(source.size, 1024)
  t.same(await mappingsOf(source), [
    { kind: 'data', start: 0, length: 1000, store: 0, offset: 0 },
    { kind: 'hole', start: 1000, length: 24 },
  ])
  t.same(await extentsOf(source), [{ start: 0, length: 1024, zero: false, hole: false }])
  t.same(await contentOf(source), Buffer.concat([Buffer.alloc(1000, 1), Buffer.alloc(24)]))
})

t.test('an empty file is an empty disk', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, '')
  const source = await openSource(path)
  t.teardown(() => source.close())
  t.equal(source.size, 0)
  t.same(await mappingsOf(source), [])
  t.same(await extentsOf(source), [])
})

t.test('a raw format that is given is not questioned', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, Buffer.concat([Buffer.from('514649fb00000003', 'hex'), Buffer.alloc(504)]))
  const source = await openSource(path, { format: 'raw' })
  t.teardown(() => source.close())
  t.equal(source.format, 'raw')
  t.equal((await contentOf(source)).readUInt32BE(0), 0x514649fb)
})

t.test('a file that changes its size is noticed', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, Buffer.alloc(4096, 1))
  const source = await openSource(path)
  t.teardown(() => source.close())
  await source.checkUnchanged()
  writeFileSync(path, Buffer.alloc(8192, 1))
  await t.rejects(source.checkUnchanged(), {
    code: 'SOURCE_CHANGED',
    what: path,
    why: 'grew from 4096 to 8192 bytes while it was read',
  })
  writeFileSync(path, Buffer.alloc(512, 1))
  await t.rejects(source.checkUnchanged(), { code: 'SOURCE_CHANGED', why: /^shrank from 4096/ })
})
