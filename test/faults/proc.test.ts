/** Where /proc is not mounted, files cannot be opened by their descriptors: everything refuses. */
import { join } from 'node:path'
import t from 'tap'
import { CLI } from '../support/cli.ts'
import { inMountNamespace } from '../support/namespace.ts'
import { qemuImg, run } from '../support/qemu.ts'

const COMMANDS = [
  'full top.qcow2 new.qcow2',
  'incremental top.qcow2 new.qcow2 --bitmap b --backing base.qcow2',
  'restore top.qcow2 new.raw',
  'extents top.qcow2',
  'chain top.qcow2',
  'commit top.qcow2',
  'diff top.qcow2 base.qcow2 --bitmap d',
  'snapshot top.qcow2 new.qcow2',
  'verify top.qcow2',
  'bitmap --add top.qcow2 x',
  'info top.qcow2',
  'map top.qcow2',
  'check -r all top.qcow2',
  'compare top.qcow2 base.qcow2',
  'measure -O qcow2 top.qcow2',
]

t.test('every command says so, and leaves everything as it is', async (t) => {
  const dir = t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', join(dir, 'base.qcow2'), '1M')
  const top = join(dir, 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', join(dir, 'base.qcow2'), '-F', 'qcow2', top)
  qemuImg('bitmap', '--add', top, 'b')
  const sums = () => run('bash', ['-c', 'cd "$1"; sha256sum *', 'bash', dir]).stdout
  const before = sums()
  const script = `cd "$1"; node=$2 cli=$3; shift 3
    mount -t tmpfs none /proc
    for command; do "$node" "$cli" $command 2>&1 && echo "status 0" || echo "status $?"; done`
  const { status, stdout, stderr } = inMountNamespace(
    script,
    dir,
    process.execPath,
    CLI,
    ...COMMANDS,
  )
  t.equal(status, 0, stderr)
  const answers = stdout.split(/^status /m)
  for (const [i, command] of COMMANDS.entries()) {
    t.match(answers[i], /cannot be opened where \/proc is not mounted/, command)
    t.match(answers[i + 1], /^[12]\n/, `${command}: it fails`)
  }
  t.equal(sums(), before)
})
