import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup, incrementalBackup } from '../../lib/index.ts'
import { makeRaw, noise, prose } from '../support/disks.ts'
import { logged } from '../support/logged.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { startServer } from '../support/server.ts'

const MIB = 2 ** 20
const SIZE = 32 * MIB

/** A disk, and a target in a directory that must stay empty when the backup fails. */
function setUp(t: Test) {
  const directory = t.testdir({ targets: {} })
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [
    { at: 0, bytes: noise(10 * MIB) },
    { at: 20 * MIB, bytes: prose(5 * MIB + 512) },
  ])
  const targets = join(directory, 'targets')
  return { disk, targets, target: join(targets, 'backup.qcow2') }
}

function isBackup(t: Test, target: string, disk: string): void {
  t.equal(qemuImgCheck(target).status, 0, 'check is clean')
  t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'raw' }), 'identical')
}

t.test('servers that are peculiar but right are backed up', async (t) => {
  const { disk, target } = setUp(t)
  for (const args of [
    // Everything is data then.
    ['--no-sr', 'file', disk],
    [
      '--filter=blocksize-policy',
      'file',
      disk,
      'blocksize-minimum=4096',
      'blocksize-maximum=65536',
    ],
    ['--filter=delay', 'file', disk, 'delay-read=5ms'],
    ['--filter=noextents', '--filter=nozero', 'file', disk],
  ]) {
    await t.test(args.join(' ').replace(disk, 'disk'), async (t) => {
      const server = await startNbdkit(t, '--readonly', ...args)
      const result = await fullBackup(server.uri(), target, { force: true })
      t.equal(result.dataBytes + result.zeroBytes, SIZE)
      t.ok(result.zeroBytes > 16 * MIB, 'zeroes are found, said or not')
      isBackup(t, target, disk)
    })
  }
})

t.test('a server that cannot read fails the backup', async (t) => {
  const { disk, target, targets } = setUp(t)
  const failing = ['error-pread=EIO', 'error-pread-rate=100%']
  const server = await startNbdkit(t, '--filter=error', 'file', disk, ...failing)
  await t.rejects(fullBackup(server.uri(), target), {
    code: 'IO',
    errno: 'EIO',
    why: /^read at \d/,
  })
  t.strictSame(readdirSync(targets), [])
})

t.test('a server that dies in the middle fails the backup', async (t) => {
  const { disk, target, targets } = setUp(t)
  const log = `${disk}.log`
  const slow = [
    '--filter=log',
    '--filter=delay',
    'file',
    disk,
    'delay-read=200ms',
    `logfile=${log}`,
  ]
  const server = await startNbdkit(t, ...slow)
  const backup = fullBackup(server.uri(), target, { requests: 2 })
  const failed = t.rejects(backup, {
    code: 'IO',
    what: /socket=/,
    why: /^the NBD server is lost: /,
  })
  await logged(log, /Read id=/, 3)
  await server.stop('SIGKILL')
  await failed
  t.strictSame(readdirSync(targets), [])
})

t.test('a server that dies and comes back: what was not answered is asked again', async (t) => {
  const { disk, target } = setUp(t)
  const log = `${disk}.log`
  const slow = [
    '--filter=log',
    '--filter=delay',
    'file',
    disk,
    'delay-read=200ms',
    `logfile=${log}`,
  ]
  const server = await startNbdkit(t, ...slow)
  const backup = fullBackup(server.uri(), target, { requests: 2 })
  await logged(log, /Read id=/, 3)
  await server.stop('SIGKILL')
  rmSync(server.socket)
  const pidFile = `${server.socket}.pid`
  const same = ['--foreground', '--unix', server.socket, '--pidfile', pidFile]
  await startServer(t, 'nbdkit', [...same, ...slow], pidFile)
  const result = await backup
  t.equal(result.dataBytes + result.zeroBytes, SIZE)
  isBackup(t, target, disk)
})

t.test('qemu-nbd, which ends with its only client unless told otherwise', async (t) => {
  const { disk, target } = setUp(t)
  const options = { format: 'raw', shared: 1, persistent: false } as const
  const server = await startQemuNbd(t, disk, options)
  const result = await fullBackup(server.uri, target)
  t.equal(result.dataBytes + result.zeroBytes, SIZE)
  isBackup(t, target, disk)
})

t.test('qemu-nbd is restarted in mid increment', async (t) => {
  const directory = t.testdir()
  const [disk, full, target] = ['disk', 'full', 'increment'].map((name) => join(directory, name))
  qemuImg('create', '-q', '-f', 'qcow2', disk, '32M')
  qemuIo(disk, 'write -P 1 0 32M')
  await fullBackup(disk, full)
  qemuImg('bitmap', '--add', disk, 'b')
  qemuIo(disk, 'write -P 2 2M 4M', 'write -P 3 10M 6M', 'discard 20M 4M')
  const options = { format: 'qcow2', bitmaps: ['b'] } as const
  for (const shared of [1, 8]) {
    const first = await startQemuNbd(t, disk, { ...options, shared })
    let restarted: Promise<unknown> | undefined
    const result = await incrementalBackup(first.uri, target, {
      ...{ bitmap: 'b', backing: full, force: true, rateLimit: 8 * MIB },
      onProgress({ dataBytes }) {
        if (dataBytes === 0) return
        restarted ??= first.stop('SIGKILL').then(async () => {
          rmSync(first.socket)
          await startQemuNbd(t, disk, { ...options, shared, socket: first.socket })
        })
      },
    })
    t.ok(restarted, 'in its middle')
    await restarted
    t.match(result, { dataBytes: 10 * MIB, zeroBytes: 4 * MIB, unchangedBytes: 18 * MIB })
    t.equal(qemuImgCheck(target).status, 0)
    t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'qcow2' }))
  }
})
