import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSource } from '../../lib/source/open-source.ts'
import { qemuImg } from '../support/qemu.ts'

const MIB = 2 ** 20

async function flagsOf(path: string, detectZeroes: boolean) {
  const source = await openSource(path)
  const extents = []
  for await (const extent of source.extents({ detectZeroes })) extents.push(extent)
  await source.close()
  return extents
}

t.test('zeroes inside of data are found, to the granule', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  const disk = Buffer.alloc(3 * MIB + 512)
  randomBytes(5000).copy(disk, 0)
  disk[MIB + 4096] = 1
  disk[3 * MIB + 511] = 1
  writeFileSync(path, disk)
  t.strictSame(await flagsOf(path, true), [
    { start: 0, length: 8192, zero: false, hole: false },
    { start: 8192, length: MIB - 4096, zero: true, hole: false },
    { start: MIB + 4096, length: 4096, zero: false, hole: false },
    { start: MIB + 8192, length: 2 * MIB - 8192, zero: true, hole: false },
    { start: 3 * MIB, length: 512, zero: false, hole: false },
  ])
  t.strictSame(await flagsOf(path, false), [
    { start: 0, length: disk.length, zero: false, hole: false },
  ])
})

t.test('in a qcow2 image too, where the host offset is another', async (t) => {
  const dir = t.testdir()
  const [raw, image] = [join(dir, 'disk.raw'), join(dir, 'disk.qcow2')]
  const disk = Buffer.alloc(MIB)
  disk[300_000] = 1
  writeFileSync(raw, disk)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, image)
  const start = Math.floor(300_000 / 4096) * 4096
  const data = (await flagsOf(image, true)).filter((extent) => !extent.zero)
  t.strictSame(data, [{ start, length: 4096, zero: false, hole: false }])
})
