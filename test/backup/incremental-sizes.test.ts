import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CopyResult, type IncrementalOptions, incrementalBackup } from '../../lib/index.ts'
import { peek64 } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, qemuIo } from '../support/qemu.ts'

/** Most that an increment without data may take, bytes: what QEMU writes for 1 TiB is 128 MiB. */
const MOST = 400 * 1024
const GIB = 2 ** 30
const TIB = 2 ** 40

/** A disk that was written in places, its backup, and a bitmap of what was done since. */
async function increment(
  t: Test,
  size: number,
  change: string[],
  options: Pick<IncrementalOptions, 'sharedTables'> = {},
): Promise<CopyResult> {
  const directory = t.testdir()
  const [disk, backing, target] = ['disk', 'previous', 'target'].map((name) =>
    join(directory, name),
  )
  // Large clusters: zeroing a terabyte is then a matter of a few tables for QEMU too.
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', disk, String(size))
  const places = Array.from({ length: 40 }, (_, i) => Math.floor((size / 40 / GIB) * i * 1024))
  qemuIo(disk, ...places.map((place) => `write -P 1 ${place}M 192k`))
  qemuImg('convert', '-f', 'qcow2', '-O', 'qcow2', disk, backing)
  qemuImg('bitmap', '--add', '-g', '64k', disk, 'b0')
  if (change.length > 0) qemuIo(disk, ...change)
  const result = await incrementalBackup(disk, target, { bitmap: 'b0', backing, ...options })
  t.equal(qemuImgCheck(target).status, 0, 'check is clean')
  const same = qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'qcow2' })
  t.ok(same, 'compare is identical')
  return result
}

/** Trims a whole disk, in requests as large as qemu-io takes. */
function trim(size: number): string[] {
  const command = (_: unknown, i: number) => `discard ${i}G 1G`
  return Array.from({ length: size / GIB }, command)
}

t.test('an increment of 10 GiB wholly zeroed is small', async (t) => {
  const result = await increment(t, 10 * GIB, ['write -z 0 1G', ...trim(10 * GIB)])
  t.match(result, { dataBytes: 0, zeroBytes: 10 * GIB, unchangedBytes: 0 })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})

t.test('an increment of 1 TiB wholly zeroed is small', async (t) => {
  const result = await increment(t, TIB, trim(TIB))
  t.match(result, { dataBytes: 0, zeroBytes: TIB, unchangedBytes: 0 })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})

t.test('an increment of 10 GiB untouched is small', async (t) => {
  const result = await increment(t, 10 * GIB, [])
  t.match(result, { dataBytes: 0, zeroBytes: 0, unchangedBytes: 10 * GIB })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})

t.test('without shared tables QEMU may write to an increment, and it stays sound', async (t) => {
  const TABLE = 512 * 2 ** 20
  const change = ['write -z 0 1G', ...trim(10 * GIB)]
  const result = await increment(t, 10 * GIB, change, { sharedTables: false })
  const { target } = result
  t.match(result, { dataBytes: 0, zeroBytes: 10 * GIB })
  const l1 = Array.from({ length: (10 * GIB) / TABLE }, (_, i) => {
    const header = peek64(target, 40)
    return peek64(target, Number(header) + 8 * i)
  })
  t.equal(new Set(l1).size, l1.length, 'each table is its own')
  t.ok(
    l1.every((entry) => entry >> 63n === 1n),
    'COPIED',
  )
  // As a virtual machine does: first into some of the tables, in the end into all.
  const order = l1.map((_, i) => (i * 7) % l1.length)
  for (const [n, i] of order.entries()) {
    qemuIo(target, `write -P ${n + 1} ${i * TABLE + n * 65536} 64k`)
    t.equal(qemuImgCheck(target).status, 0, `sound after ${n + 1} writes`)
  }
})

t.test('with shared tables an increment of the same disk is smaller', async (t) => {
  const change = ['write -z 0 1G', ...trim(10 * GIB)]
  const [shared, own] = [
    await increment(t, 10 * GIB, change, { sharedTables: true }),
    await increment(t, 10 * GIB, change, { sharedTables: false }),
  ]
  t.equal(own.fileSize - shared.fileSize, (20 - 1) * 65536)
})

t.test('sharedTables that is no boolean is wrong usage', async (t) => {
  const sharedTables = 'no' as unknown as boolean
  await t.rejects(increment(t, GIB, [], { sharedTables }), {
    code: 'USAGE',
    argument: 'sharedTables',
  })
})
