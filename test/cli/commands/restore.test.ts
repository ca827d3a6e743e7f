import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg, qemuIo } from '../../support/qemu.ts'

const MIB = 2 ** 20

/** A directory with a chain of two images, base.qcow2 and top.qcow2, of 16 MiB. */
function setUp(test: Test): string {
  const directory = test.testdir()
  const [base, top] = ['base.qcow2', 'top.qcow2'].map((name) => join(directory, name))
  qemuImg('create', '-q', '-f', 'qcow2', base, '16M')
  qemuIo(base, 'write -P 1 1M 1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', top)
  qemuIo(top, 'write -P 2 4M 1M', 'write -z 1M 64k')
  return directory
}

t.test('restore writes a chain to a sparse raw file', async (t) => {
  const cwd = setUp(t)
  const { status, stdout, stderr } = await runCli(['restore', 'top.qcow2', 'disk.raw'], { cwd })
  t.equal(status, 0, stderr)
  t.match(stdout, /^disk\.raw: complete\n {2}disk 16 MiB: /)
  qemuImg('compare', '-f', 'raw', '-F', 'qcow2', join(cwd, 'disk.raw'), join(cwd, 'top.qcow2'))
  const { size, blocks, mode } = statSync(join(cwd, 'disk.raw'))
  t.equal(size, 16 * MIB)
  t.ok(blocks * 512 <= 2 * MIB, 'holes take no room')
  t.equal(mode & 0o777, 0o600)
})

t.test('restore writes a chain to a qcow2 image', async (t) => {
  const cwd = setUp(t)
  const args = 'restore -O qcow2 --cluster-size 128K --json top.qcow2 disk.qcow2'
  const { status, stdout, stderr } = await runCli(args.split(' '), { cwd })
  t.equal(status, 0, stderr)
  t.match(JSON.parse(stdout), { target: 'disk.qcow2', virtualSize: 16 * MIB, unchangedBytes: 0 })
  const info = JSON.parse(qemuImg('info', '--output=json', join(cwd, 'disk.qcow2')))
  t.equal(info['cluster-size'], 128 * 1024)
  t.notOk(info['backing-filename'])
  qemuImg('compare', join(cwd, 'disk.qcow2'), join(cwd, 'top.qcow2'))
})

t.test('restore refuses an image of the chain as target', async (t) => {
  const cwd = setUp(t)
  for (const target of ['top.qcow2', 'base.qcow2']) {
    const { status, stderr } = await runCli(['restore', '--force', 'top.qcow2', target], { cwd })
    t.equal(status, 1)
    t.match(stderr, `qcow2-backup: ${target}: is the source`)
  }
  qemuImg('check', '-q', join(cwd, 'base.qcow2'))
})

t.test('restore refuses a target that exists, and a broken chain', async (t) => {
  const cwd = setUp(t)
  writeFileSync(join(cwd, 'old.raw'), 'old')
  const exists = await runCli(['restore', 'top.qcow2', 'old.raw'], { cwd })
  t.equal(exists.status, 1)
  t.equal(exists.stderr, 'qcow2-backup: old.raw: exists; --force replaces it\n')
  qemuImg('rebase', '-q', '-u', '-b', 'gone.qcow2', '-F', 'qcow2', join(cwd, 'top.qcow2'))
  const broken = await runCli(['restore', 'top.qcow2', 'new.raw'], { cwd })
  t.equal(broken.status, 1)
  t.match(broken.stderr, /^qcow2-backup: [^\n]*gone\.qcow2: [^\n]+\n$/)
  t.strictSame(readdirSync(cwd).sort(), ['base.qcow2', 'old.raw', 'top.qcow2'])
})
