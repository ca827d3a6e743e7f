import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { logged } from '../support/logged.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

const MIB = 2 ** 20
const SIZE = 16 * MIB

t.test('a server that fails for a while is asked again, and nothing is wrong', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes: noise(SIZE) }])
  const target = join(directory, 'backup.qcow2')
  const trouble = join(directory, 'trouble')
  const log = join(directory, 'log')
  const failing = ['error-pread=EIO', 'error-pread-rate=50%', `error-file=${trouble}`]
  const filters = ['--filter=log', '--filter=error']
  const server = await startNbdkit(t, ...filters, 'file', disk, ...failing, `logfile=${log}`)
  writeFileSync(trouble, '')
  const backup = fullBackup(server.uri(), target, { retries: 10 })
  await logged(log, /\.\.\.Read .*return=-1/)
  rmSync(trouble)
  t.equal((await backup).dataBytes, SIZE)
  t.equal(qemuImgCheck(target).status, 0)
  t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'raw' }))
})

t.test('one range that cannot be read fails the backup, and the message says where', async (t) => {
  const directory = t.testdir({ targets: {} })
  // Whoever reads the byte at 5 MiB gets EIO.
  const broken = `if [ $4 -le ${5 * MIB} ] && [ $(($4 + $3)) -gt ${5 * MIB} ]; then echo EIO >&2; exit 1; fi; dd if=/dev/zero bs=$3 count=1 status=none`
  const server = await startNbdkit(t, 'eval', `get_size=echo ${SIZE}`, `pread=${broken}`)
  const target = join(directory, 'targets', 'backup.qcow2')
  const { status, stderr } = await runCli(['full', server.uri(), target, '--retries', '1'])
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: nbd\+unix:.*: read at 5242880: input\/output error\n$/)
  t.strictSame(readdirSync(join(directory, 'targets')), [])
})
