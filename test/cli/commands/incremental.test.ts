import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuImgSame, qemuIo } from '../../support/qemu.ts'

const MIB = 2 ** 20
const SINCE = ['--bitmap', 'sunday', '--backing', 'sunday.qcow2']

/** A directory with a disk that was backed up on sunday and changed since. */
async function setUp(test: Test): Promise<string> {
  const cwd = test.testdir()
  const disk = join(cwd, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '16M')
  qemuIo(disk, 'write -P 1 0 8M')
  const full = await runCli(['full', 'disk.qcow2', 'sunday.qcow2'], { cwd })
  test.equal(full.status, 0, full.stderr)
  qemuImg('bitmap', '--add', disk, 'sunday')
  qemuIo(disk, 'write -P 2 1M 2M', 'write -z 4M 1M')
  return cwd
}

t.test('incremental prints its result for people', async (t) => {
  const cwd = await setUp(t)
  const args = ['incremental', 'disk.qcow2', 'monday.qcow2', ...SINCE]
  const { status, stdout, stderr } = await runCli(args, { cwd })
  t.equal(status, 0, stderr)
  t.equal(stderr, '')
  const lines =
    /^monday\.qcow2: complete\n {2}disk 16 MiB: 2 MiB data, 1 MiB zero, 13 MiB unchanged\n/
  t.match(stdout, lines)
  t.equal(stdout.split('\n').length, 4)

  const target = { path: join(cwd, 'monday.qcow2'), format: 'qcow2' }
  t.ok(qemuImgSame(target, { path: join(cwd, 'disk.qcow2'), format: 'qcow2' }))
  t.equal(qemuImgCheck(target.path).status, 0)
  t.equal(qemuImgInfo(target.path)['backing-filename'], 'sunday.qcow2')

  const restored = await runCli(['restore', 'monday.qcow2', 'disk.raw'], { cwd })
  t.equal(restored.status, 0, restored.stderr)
  t.ok(qemuImgSame(target, { path: join(cwd, 'disk.raw'), format: 'raw' }))
})

t.test('incremental --json prints options and a note', async (t) => {
  const cwd = await setUp(t)
  qemuImg('bitmap', '--disable', join(cwd, 'disk.qcow2'), 'sunday')
  const more = ['--cluster-size', '4K', '--compress', 'zstd', '--engine', 'threads', '--json']
  const args = ['incremental', 'disk.qcow2', 'monday.qcow2', ...SINCE, ...more]
  const { status, stdout, stderr } = await runCli(args, { cwd })
  t.equal(status, 0, stderr)
  t.match(JSON.parse(stdout), {
    target: 'monday.qcow2',
    virtualSize: 16 * MIB,
    dataBytes: 2 * MIB,
    zeroBytes: MIB,
    unchangedBytes: 13 * MIB,
    engine: 'threads',
    notes: [/^bitmap 'sunday' is disabled: /],
  })
  t.equal(qemuImgInfo(join(cwd, 'monday.qcow2'))['cluster-size'], 4096)
  const again = await runCli([...args.slice(0, -1), '--force'], { cwd })
  t.match(again.stdout, /\n {2}note: bitmap 'sunday' is disabled: [^\n]+\n$/)
})

t.test('what incremental refuses is one line, and no target', async (t) => {
  const cwd = await setUp(t)
  writeFileSync(join(cwd, 'disk.raw'), Buffer.alloc(MIB))
  const before = readdirSync(cwd).sort()
  const cases: [args: string[], status: number, line: string][] = [
    [[], 2, '--bitmap: missing; it names the bitmap that records what changed'],
    [['--bitmap', 'sunday'], 2, '--backing: missing; it names the previous backup'],
    [
      ['--bitmap', 'friday', '--backing', 'sunday.qcow2'],
      1,
      "disk.qcow2: has no bitmap 'friday'; it has 'sunday'",
    ],
    [['--bitmap', 'sunday', '--backing', 'none.qcow2'], 1, 'none.qcow2: no such file or directory'],
    [
      ['--bitmap', 'sunday', '--backing', 'disk.raw'],
      1,
      'disk.raw: is not in qcow2 format; say what it is with --backing-format raw',
    ],
    [
      ['--bitmap', 'sunday', '--backing', 'disk.qcow2'],
      2,
      '--backing: disk.qcow2 is part of the source, not a backup of it',
    ],
    [
      [...SINCE, '--cluster-size', '1000'],
      2,
      '--cluster-size: 1000 is not a power of two from 512 to 2M',
    ],
  ]
  for (const [args, status, line] of cases) {
    const result = await runCli(['incremental', 'disk.qcow2', 'monday.qcow2', ...args], { cwd })
    t.equal(result.stderr, `qcow2-backup: ${line}\n`)
    t.equal(result.status, status)
    t.equal(result.stdout, '')
  }
  const over = await runCli(['incremental', 'disk.qcow2', 'sunday.qcow2', ...SINCE, '--force'], {
    cwd,
  })
  t.equal(over.stderr, 'qcow2-backup: sunday.qcow2: is its own backing file\n')
  t.strictSame(readdirSync(cwd).sort(), before)
})
