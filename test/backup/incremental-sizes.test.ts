import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CopyResult, incrementalBackup } from '../../lib/index.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, qemuIo } from '../support/qemu.ts'

/** Most that an increment without data may take, bytes: what QEMU writes for 1 TiB is 128 MiB. */
const MOST = 400 * 1024
const GIB = 2 ** 30
const TIB = 2 ** 40

/** A disk that was written in places, its backup, and a bitmap of what was done since. */
async function increment(t: Test, size: number, change: string[]): Promise<CopyResult> {
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
  const result = await incrementalBackup(disk, target, { bitmap: 'b0', backing })
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

t.test('10 GiB wholly zeroed', async (t) => {
  const result = await increment(t, 10 * GIB, ['write -z 0 1G', ...trim(10 * GIB)])
  t.match(result, { dataBytes: 0, zeroBytes: 10 * GIB, unchangedBytes: 0 })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})

t.test('1 TiB wholly zeroed', async (t) => {
  const result = await increment(t, TIB, trim(TIB))
  t.match(result, { dataBytes: 0, zeroBytes: TIB, unchangedBytes: 0 })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})

t.test('10 GiB untouched', async (t) => {
  const result = await increment(t, 10 * GIB, [])
  t.match(result, { dataBytes: 0, zeroBytes: 0, unchangedBytes: 10 * GIB })
  t.ok(result.fileSize <= MOST, `${result.fileSize} bytes`)
})
