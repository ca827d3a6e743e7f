import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup, incrementalBackup, restore } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { firstDifference, makeRaw, noise, prose } from '../support/disks.ts'
import { logged } from '../support/logged.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'

const MIB = 2 ** 20
const SIZE = 40 * MIB + 512

/** A backup of two points, what the disk was at the second, and a file full of something else. */
async function setUp(t: Test, room = SIZE) {
  const directory = t.testdir()
  const path = (name: string) => join(directory, name)
  qemuImg('create', '-q', '-f', 'qcow2', path('disk.qcow2'), String(SIZE))
  const first = ['write -P 1 0 9M', 'write -P 2 20M 3000k', `write -P 3 ${SIZE - 512} 512`]
  qemuIo(path('disk.qcow2'), ...first)
  await fullBackup(path('disk.qcow2'), path('full.qcow2'))
  qemuImg('bitmap', '--add', path('disk.qcow2'), 'since')
  qemuIo(path('disk.qcow2'), 'write -z 1M 2M', 'write -P 4 5000k 3k', 'write -P 5 30M 1M')
  await incrementalBackup(path('disk.qcow2'), path('backup.qcow2'), {
    bitmap: 'since',
    backing: path('full.qcow2'),
  })
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', path('disk.qcow2'), path('expected.raw'))
  writeFileSync(path('target.raw'), Buffer.alloc(room, 0xee))
  const expected = readFileSync(path('expected.raw'))
  const isRestored = (t: Test) => {
    const found = readFileSync(path('target.raw')).subarray(0, SIZE)
    t.equal(firstDifference(found, expected), undefined, 'byte for byte')
  }
  return { backup: path('backup.qcow2'), file: path('target.raw'), path, isRestored }
}

t.test('a chain to an export that was full of something else', async (t) => {
  const { backup, file, isRestored } = await setUp(t)
  for (const [name, ...args] of [
    ['nbdkit', 'file', file],
    ['no zeroes', '--filter=nozero', 'file', file],
    ['zeroes by writing', '--filter=nozero', 'file', file, 'zeromode=emulate'],
    ['no flush', '--filter=fua', 'file', file, 'fuamode=discard'],
    ['small requests', '--filter=blocksize-policy', 'file', file, 'blocksize-maximum=65536'],
    ['one connection', '--filter=multi-conn', 'file', file, 'multi-conn-mode=disable'],
  ]) {
    await t.test(name, async (t) => {
      writeFileSync(file, Buffer.alloc(SIZE, 0xee))
      const server = await startNbdkit(t, ...args)
      const result = await restore(backup, server.uri())
      t.match(result, { target: server.uri(), virtualSize: SIZE, fileSize: SIZE, direct: false })
      t.equal(result.dataBytes + result.zeroBytes, SIZE)
      isRestored(t)
    })
  }
})

t.test('to a qcow2 image behind qemu-nbd, which ends with its only client', async (t) => {
  const { backup, path } = await setUp(t)
  const image = path('image.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, String(SIZE))
  qemuIo(image, `write -P 7 0 ${SIZE}`)
  const options = { writable: true, persistent: false, shared: 1 }
  const server = await startQemuNbd(t, image, options)
  await restore(backup, server.uri)
  await server.stop()
  qemuImg('compare', '-f', 'qcow2', '-F', 'raw', image, path('expected.raw'))
})

t.test('zeroes take up room in an export only with noHole', async (t) => {
  const { backup, file, isRestored } = await setUp(t)
  const server = await startNbdkit(t, 'file', file)
  await restore(backup, server.uri())
  isRestored(t)
  t.ok(statSync(file).blocks * 512 < 15 * MIB, 'sparse')
  const { status, stderr } = await runCli(['restore', backup, server.uri(), '--no-hole'])
  t.equal(status, 0, stderr)
  isRestored(t)
  t.ok(statSync(file).blocks * 512 >= SIZE, 'allocated')
})

t.test('an export in large blocks, and one that is larger than the disk', async (t) => {
  const room = 41 * MIB
  const { backup, file, isRestored } = await setUp(t, room)
  const large = [
    ...['blocksize-minimum=65536', 'blocksize-preferred=65536', 'blocksize-error-policy=error'],
  ]
  const server = await startNbdkit(t, '--filter=blocksize-policy', 'file', file, ...large)
  const result = await restore(backup, server.uri())
  t.equal(result.fileSize, room)
  isRestored(t)
  const behind = readFileSync(file).subarray(Math.ceil(SIZE / 65536) * 65536)
  t.ok(behind.equals(Buffer.alloc(behind.length, 0xee)), 'what lies behind the disk is left alone')
})

t.test('an export that cannot hold the disk is refused', async (t) => {
  const { backup, file, path } = await setUp(t)
  const small = await startNbdkit(t, 'memory', '1M')
  await t.rejects(restore(backup, small.uri()), {
    code: 'BAD_TARGET',
    why: 'holds 1 MiB, the disk needs 40 MiB',
  })
  const readOnly = await startNbdkit(t, '--readonly', 'file', file)
  await t.rejects(restore(backup, readOnly.uri()), {
    code: 'BAD_TARGET',
    why: 'is exported read-only; export it writable',
  })
  await t.rejects(restore(backup, small.uri(), { outputFormat: 'qcow2' }), { code: 'USAGE' })
  await t.rejects(restore(backup, path('new.raw'), { noHole: true }), { code: 'USAGE' })
  await t.rejects(restore(backup, `nbd+unix:///?socket=${path('none')}`), { code: 'IO' })
  t.ok(readFileSync(file).equals(Buffer.alloc(SIZE, 0xee)), 'nothing was written')
})

t.test('a server that fails, or is lost, while it is written to', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), 32 * MIB, [
    { at: 0, bytes: noise(20 * MIB) },
    { at: 25 * MIB, bytes: prose(MIB) },
  ])
  const backup = join(directory, 'backup.qcow2')
  await fullBackup(disk, backup)
  const failing = await startNbdkit(
    t,
    '--filter=error',
    'memory',
    '32M',
    'error-pwrite=ENOSPC',
    'error-pwrite-rate=100%',
  )
  await t.rejects(restore(backup, failing.uri()), {
    code: 'IO',
    errno: 'ENOSPC',
    message: /^nbd\+unix:.*: write at \d+: no space left on device$/,
  })
  const noFlush = await startNbdkit(
    t,
    ...[
      'eval',
      'get_size=echo 32M',
      'pread=dd if=/dev/zero bs=$3 count=1',
      'pwrite=cat >/dev/null',
    ],
    ...['can_write=exit 0', 'can_flush=exit 0', 'can_zero=exit 0', 'zero=exit 0'],
    'flush=echo EIO flush >&2; exit 1',
  )
  await t.rejects(restore(backup, noFlush.uri()), { code: 'IO', errno: 'EIO', why: /^sync: / })
  const log = `${backup}.log`
  const memory = ['memory', '32M', 'delay-write=300ms', `logfile=${log}`]
  const slow = await startNbdkit(t, '--filter=log', '--filter=delay', ...memory)
  const restored = t.rejects(restore(backup, slow.uri(), { requests: 2 }), {
    code: 'IO',
    message: /^nbd\+unix:.*the NBD server is lost: /,
  })
  await logged(log, /Write id=/, 2)
  await slow.stop('SIGKILL')
  await restored
})
