import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, restore } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { makeRaw } from '../support/disks.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

const MIB = 2 ** 20

t.test('QEMU’s fleecing image shrinks to nothing, and keeps nothing any more', async (t) => {
  const SIZE = 64 * MIB
  const directory = t.testdir()
  const [disk, scratch, full, target] = [
    'disk.qcow2',
    'scratch.raw',
    'full.qcow2',
    'inc.qcow2',
  ].map((name) => join(directory, name))
  qemuImg('create', '-q', '-f', 'qcow2', disk, String(SIZE))
  qemuIo(disk, 'write -P 1 0 40M')
  await fullBackup(disk, full)
  writeFileSync(scratch, '')
  truncateSync(scratch, SIZE)

  const daemon = await startStorageDaemon(t)
  await daemon.open('disk', disk)
  await daemon.addBitmap('disk', 'since')
  const guest = {
    path: await daemon.export('disk', { name: 'guest', writable: true }),
    format: 'raw',
  } as const
  qemuIo(guest, 'write -P 2 10M 8M', 'write -z 20M 4M')
  // A point in time: what the guest overwrites from now on is kept in the scratch file.
  const file = { driver: 'file', 'node-name': 'scratch', filename: scratch, discard: 'unmap' }
  await daemon.qmp('blockdev-add', file)
  await daemon.qmp('block-dirty-bitmap-disable', { node: 'disk', name: 'since' })
  await daemon.qmp('blockdev-backup', {
    ...{ 'job-id': 'pull', device: 'disk', target: 'scratch', sync: 'none' },
    'filter-node-name': 'filter',
  })
  const access = { driver: 'snapshot-access', 'node-name': 'point', file: 'filter' }
  await daemon.qmp('blockdev-add', { ...access, discard: 'unmap' })
  const uri = await daemon.export('point', {
    name: 'point',
    writable: true,
    bitmaps: [{ node: 'disk', name: 'since' }],
  })
  const expected = join(directory, 'expected.raw')
  qemuImg('convert', '-f', 'raw', '-O', 'raw', uri, expected)
  qemuIo(guest, 'write -P 3 8M 12M', 'write -P 4 30M 2M')
  const kept = statSync(scratch).blocks * 512
  t.ok(kept >= 14 * MIB, `the scratch file keeps what was overwritten: ${kept}`)

  const options = ['--bitmap', 'since', '--backing', full, '--discard-after-copy', '64K', '--json']
  const { status, stdout, stderr } = await runCli(['incremental', uri, target, ...options])
  t.equal(status, 0, stderr)
  const result = JSON.parse(stdout)
  t.match(result, { dataBytes: 8 * MIB, zeroBytes: 4 * MIB })
  t.notOk(result.notes)
  t.equal(statSync(scratch).blocks, 0, 'nothing is left in the scratch file')
  qemuIo(guest, 'write -P 5 32M 4M')
  t.equal(statSync(scratch).blocks, 0, 'and nothing is kept there any more')

  t.equal(qemuImgCheck(target).status, 0)
  const restored = join(directory, 'restored.raw')
  await restore(target, restored)
  t.ok(readFileSync(restored).equals(readFileSync(expected)), 'the point in time')
})

t.test('the end of the disk counts, however the granules lie', async (t) => {
  const directory = t.testdir()
  const log = join(directory, 'log')
  const trims = () =>
    [...readFileSync(log, 'utf8').matchAll(/Trim.* offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)/g)].map(
      ([, offset, count]) => [Number(offset), Number(count)],
    )
  const server = await startNbdkit(t, '--filter=log', 'memory', '6M', `logfile=${log}`)
  const target = join(directory, 'backup.qcow2')
  await fullBackup(server.uri(), target, { discardAfterCopy: 4 * MIB })
  t.strictSame(
    trims(),
    [
      [0, 6 * MIB],
      [0, 6 * MIB],
    ],
    'nothing of it is read; and all of it is durable',
  )
})

t.test('where nothing can be discarded the backup does not begin', async (t) => {
  const directory = t.testdir()
  const target = join(directory, 'backup.qcow2')
  const options = { discardAfterCopy: 65536 }
  const refused = (why: RegExp, code: string) => ({ code, why })
  const readOnly = await startNbdkit(t, '--readonly', 'memory', '1M')
  await t.rejects(
    fullBackup(readOnly.uri(), target, options),
    refused(/^is exported read-only, so nothing can be discarded there$/, 'UNSUPPORTED'),
  )
  const single = await startNbdkit(
    t,
    ...['--filter=multi-conn', 'memory', '1M', 'multi-conn-mode=disable'],
  )
  await t.rejects(
    fullBackup(single.uri(), target, options),
    refused(/does not support several connections/, 'UNSUPPORTED'),
  )
  const disk = makeRaw(join(directory, 'disk.raw'), MIB, [])
  await t.rejects(
    fullBackup(disk, target, options),
    refused(/^is only supported for NBD exports/, 'USAGE'),
  )
  const large = await startNbdkit(
    t,
    ...[
      '--filter=blocksize-policy',
      'memory',
      '1M',
      'blocksize-minimum=65536',
      'blocksize-preferred=65536',
    ],
  )
  await t.rejects(
    fullBackup(large.uri(), target, { discardAfterCopy: 4096 }),
    refused(/^4096 is not a multiple of 65536, the server's minimum block size$/, 'USAGE'),
  )
})

t.test('a server that refuses to discard does not fail the backup', async (t) => {
  const directory = t.testdir()
  const target = join(directory, 'backup.qcow2')
  const server = await startNbdkit(
    t,
    '--filter=error',
    'memory',
    '4M',
    'error-trim=ENOSPC',
    'error-trim-rate=100%',
  )
  const result = await fullBackup(server.uri(), target, { discardAfterCopy: 65536 })
  t.match(result.notes, [/^the backup is complete, but not all was discarded at the source: /])
  t.equal(qemuImgCheck(target).status, 0)
})
