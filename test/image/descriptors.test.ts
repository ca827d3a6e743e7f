/** A chain of many images needs one file descriptor for each, and few besides. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI } from '../support/cli.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuIo, run } from '../support/qemu.ts'

const LAYERS = 200
const LIMIT = 256

/** Runs the program where so few files may be open. */
function limited(cwd: string, limit: number, args: readonly string[]) {
  const script = 'cd "$1"; ulimit -n "$2"; shift 2; exec "$@"'
  return run('bash', ['-c', script, 'bash', cwd, String(limit), process.execPath, CLI, ...args])
}

function nameOf(layer: number): string {
  return `l${String(layer).padStart(3, '0')}.qcow2`
}

/** A chain of 1 MiB, whose images hold data here and there; the topmost is `top.qcow2`. */
function chain(t: Test): string {
  const dir = t.testdir()
  const layer = (i: number) => join(dir, nameOf(i))
  qemuImg('create', '-q', '-f', 'qcow2', layer(0), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', layer(0), '-F', 'qcow2', layer(1))
  const model = readFileSync(layer(1))
  const at = model.indexOf(layer(0)) + layer(0).length - nameOf(0).length
  for (let i = 1; i < LAYERS; i++) {
    model.write(nameOf(i - 1), at)
    writeFileSync(layer(i), model)
  }
  for (const i of [0, 1, 100, LAYERS - 1]) {
    qemuIo(layer(i), `write -q -P ${i + 1} ${(i % 16) * 64}k 4k`)
  }
  const top = join(dir, 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', layer(LAYERS - 1), '-F', 'qcow2', top)
  qemuImg('bitmap', '--add', top, 'b')
  qemuIo(top, 'write -q -P 99 512k 64k')
  return dir
}

t.test(`every command takes a chain of ${LAYERS} images with ${LIMIT} descriptors`, async (t) => {
  const dir = chain(t)
  qemuImg('convert', '-O', 'raw', join(dir, 'top.qcow2'), join(dir, 'expected.raw'))
  const ends = [
    `commit top.qcow2 --base ${nameOf(LAYERS - 1)}`,
    `commit ${nameOf(LAYERS - 1)} --base ${nameOf(0)}`,
  ]
  const commands = [
    // Before another bitmap is added, which does not record.
    'chain top.qcow2',
    'full top.qcow2 full.qcow2 --verify',
    'incremental top.qcow2 inc.qcow2 --bitmap b --backing full.qcow2',
    'restore top.qcow2 restored.raw',
    'diff top.qcow2 full.qcow2 --bitmap d',
    'check top.qcow2',
    'snapshot top.qcow2 overlay.qcow2',
  ]
  const others = [
    'full top.qcow2 compressed.qcow2 --compress zstd',
    'restore top.qcow2 restored.qcow2 -O qcow2',
    'restore top.qcow2 verified.raw --verify',
    'compare top.qcow2 full.qcow2',
    'compare full.qcow2 top.qcow2',
    'diff full.qcow2 top.qcow2 --bitmap d',
    'map top.qcow2',
    'info --backing-chain top.qcow2',
    'measure -O qcow2 top.qcow2',
    'extents top.qcow2',
    'extents top.qcow2 --bitmap b',
    'verify top.qcow2',
    'bitmap --add --merge b top.qcow2 e',
  ]
  for (const command of [...commands, ...effort([], others), ...ends]) {
    const { status, stderr } = limited(dir, LIMIT, command.split(' '))
    t.equal(status, 0, `${command}: ${stderr}`)
  }
  const same = (path: string, format: string) =>
    qemuImg('compare', '-f', format, '-F', 'raw', join(dir, path), join(dir, 'expected.raw'))
  const more = effort([], ['compressed.qcow2', 'restored.qcow2'])
  for (const path of ['full.qcow2', 'inc.qcow2', nameOf(0), ...more]) same(path, 'qcow2')
  for (const path of ['restored.raw', ...effort([], ['verified.raw'])]) same(path, 'raw')
})

t.test('with fewer than there are images, the remedy is named, and nothing is left', async (t) => {
  const dir = chain(t)
  const before = run('ls', ['-A', dir]).stdout
  for (const command of ['full top.qcow2 o.qcow2', 'restore top.qcow2 o.raw', 'chain top.qcow2']) {
    const { status, stderr } = limited(dir, LAYERS - 50, command.split(' '))
    t.equal(status, 1, command)
    t.match(stderr, /^qcow2-backup: .*: too many open files; .*ulimit -n.*\n$/m, command)
  }
  t.equal(run('ls', ['-A', dir]).stdout, before)
})
