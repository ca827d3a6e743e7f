import { spawnSync } from 'node:child_process'
import {
  closeSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI, runCli } from '../../support/cli.ts'
import { qemuImg } from '../../support/qemu.ts'

const MIB = 2 ** 20

/** A directory with a disk of 16 MiB that holds data in its second MiB. */
function setUp(test: Test): string {
  const directory = test.testdir()
  const disk = join(directory, 'disk.raw')
  writeFileSync(disk, '')
  truncateSync(disk, 16 * MIB)
  const fd = openSync(disk, 'r+')
  writeSync(fd, Buffer.alloc(MIB, 'some data '), 0, MIB, MIB)
  closeSync(fd)
  return directory
}

t.test('full prints its result for people', async (t) => {
  const cwd = setUp(t)
  const { status, stdout, stderr } = await runCli(['full', 'disk.raw', 'b.qcow2'], { cwd })
  t.equal(status, 0, stderr)
  t.equal(stderr, '', 'no progress where there is no terminal')
  t.match(stdout, /^b\.qcow2: complete\n {2}disk 16 MiB: 1 MiB data, 15 MiB zero\n {2}file .*\n$/)
  qemuImg('compare', '-f', 'raw', '-F', 'qcow2', join(cwd, 'disk.raw'), join(cwd, 'b.qcow2'))
  qemuImg('check', '-q', join(cwd, 'b.qcow2'))
  t.equal(statSync(join(cwd, 'b.qcow2')).mode & 0o777, 0o600)
  t.strictSame(readdirSync(cwd).sort(), ['b.qcow2', 'disk.raw'])
})

t.test('full --json prints one object and nothing else', async (t) => {
  const cwd = setUp(t)
  const args = ['full', 'disk.raw', 'b.qcow2', '--json', '--no-progress']
  const { status, stdout, stderr } = await runCli(args, { cwd })
  t.equal(status, 0, stderr)
  t.equal(stderr, '')
  const result = JSON.parse(stdout)
  const stats = statSync(join(cwd, 'b.qcow2'))
  t.match(result, {
    target: 'b.qcow2',
    virtualSize: 16 * MIB,
    dataBytes: MIB,
    zeroBytes: 15 * MIB,
    unchangedBytes: 0,
    fileSize: stats.size,
    allocatedBytes: stats.blocks * 512,
  })
  t.type(result.elapsedSeconds, 'number')
})

t.test('--progress json: lines on stderr that end at the whole size', async (t) => {
  const cwd = setUp(t)
  const args = ['full', 'disk.raw', 'b.qcow2', '--json', '--progress', 'json']
  const { status, stdout, stderr } = await runCli(args, { cwd })
  t.equal(status, 0, stderr)
  t.equal(JSON.parse(stdout).virtualSize, 16 * MIB)
  const lines = stderr
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(lines.at(-1), { position: 16 * MIB, size: 16 * MIB, dataBytes: MIB })
  for (const line of lines) {
    t.strictSame(Object.keys(line), ['phase', 'position', 'size', 'dataBytes', 'elapsedSeconds'])
  }
})

t.test('full draws a bar on a terminal', async (t) => {
  const cwd = setUp(t)
  // script(1) gives the program a terminal and passes on what is drawn there.
  const onTerminal = (...args: string[]) => {
    const command = [process.execPath, CLI, 'full', 'disk.raw', 'b.qcow2', '--force', ...args]
    const options = { cwd, encoding: 'utf8', env: { ...process.env, TERM: 'xterm' } } as const
    return spawnSync('script', ['-qec', command.join(' '), '/dev/null'], options)
  }
  const bar = onTerminal('--rate-limit', '1M')
  t.equal(bar.status, 0, bar.stdout)
  t.match(bar.stdout, /\[=* *\] +\d+% .* of 16 MiB, data .*\/s, .* left/)
  t.match(bar.stdout, 'b.qcow2: complete')
  const none = onTerminal('--no-progress')
  t.equal(none.status, 0, none.stdout)
  t.notMatch(none.stdout, /\[=* *\]/)
})

t.test('options of full reach the image', async (t) => {
  const cwd = setUp(t)
  const args = 'full disk.raw b.qcow2 --cluster-size 4K --compress zstd --compression-level 5'
  const { status, stderr } = await runCli(args.split(' '), { cwd })
  t.equal(status, 0, stderr)
  const info = JSON.parse(qemuImg('info', '--output=json', join(cwd, 'b.qcow2')))
  t.equal(info['cluster-size'], 4096)
  t.equal(info['format-specific'].data['compression-type'], 'zstd')
  qemuImg('compare', '-f', 'raw', '-F', 'qcow2', join(cwd, 'disk.raw'), join(cwd, 'b.qcow2'))
})

t.test('engine and O_DIRECT by option or environment', async (t) => {
  const cwd = setUp(t)
  const full = (args: string[], env: Record<string, string> = {}) =>
    runCli(['full', 'disk.raw', 'b.qcow2', '--force', '--json', ...args], { cwd, env })
  for (const result of [
    await full(['--engine', 'threads', '--direct', 'off']),
    await full([], { QCOW2_BACKUP_ENGINE: 'threads', QCOW2_BACKUP_DIRECT: 'off' }),
    await full(['--engine', 'threads', '--direct', 'off'], {
      QCOW2_BACKUP_ENGINE: 'io_uring',
      QCOW2_BACKUP_DIRECT: 'on',
    }),
  ]) {
    t.equal(result.status, 0, result.stderr)
    t.match(JSON.parse(result.stdout), { engine: 'threads', direct: false })
  }
  const debug = await full(['--debug', '--engine', 'threads', '--direct', 'off'])
  t.match(debug.stderr, 'engine threads, written through the page cache')
})

t.test('wrong values of full are wrong usage', async (t) => {
  const cwd = setUp(t)
  for (const [option, value] of [
    ['--cluster-size', '1000'],
    ['--cluster-size', '256'],
    ['--cluster-size', '4M'],
    ['--requests', '0'],
    ['--requests', '1025'],
    ['--rate-limit', '0'],
    ['--compression-level', '3'],
  ]) {
    const { status, stdout, stderr } = await runCli(
      ['full', 'disk.raw', 'b.qcow2', option, value],
      { cwd },
    )
    t.equal(status, 2, `${option} ${value}`)
    t.equal(stdout, '')
    t.match(stderr, new RegExp(`^qcow2-backup: ${option}: [^\\n]+\\n$`))
  }
  t.strictSame(readdirSync(cwd), ['disk.raw'])
})

t.test('targets that are refused, and stay as they are', async (t) => {
  const cwd = setUp(t)
  const image = Buffer.from('QFI\xfbold', 'latin1')
  writeFileSync(join(cwd, 'old.qcow2'), image)
  writeFileSync(join(cwd, 'other.raw'), 'old')
  linkSync(join(cwd, 'disk.raw'), join(cwd, 'hard'))
  symlinkSync('disk.raw', join(cwd, 'soft'))
  const before = readdirSync(cwd)
  const cases: [args: string[], line: string][] = [
    [['old.qcow2'], 'old.qcow2: exists; --force replaces it'],
    [['other.raw'], 'other.raw: exists and is not a qcow2 image; remove it if it is not needed'],
    [
      ['other.raw', '--force'],
      'other.raw: exists and is not a qcow2 image; remove it if it is not needed',
    ],
    [['disk.raw', '--force'], 'disk.raw: is the source'],
    [['hard', '--force'], 'hard: is the source, also named disk.raw'],
    [['soft', '--force'], 'soft: is the source, also named disk.raw'],
    [['hard'], 'hard: is the source, also named disk.raw'],
    [['.', '--force'], '.: is a directory'],
    [['none/b.qcow2'], 'none: no such directory'],
    [['/dev/null', '--force'], '/dev/null: is a character device'],
    [['/proc/b.qcow2'], '/proc: new files cannot be made in this directory'],
  ]
  for (const [args, line] of cases) {
    const { status, stdout, stderr } = await runCli(['full', 'disk.raw', ...args], { cwd })
    t.equal(stderr, `qcow2-backup: ${line}\n`)
    t.equal(status, 1)
    t.equal(stdout, '')
  }
  t.strictSame(readdirSync(cwd), before)
  t.ok(readFileSync(join(cwd, 'old.qcow2')).equals(image))
  t.equal(readFileSync(join(cwd, 'other.raw'), 'utf8'), 'old')
  t.equal(statSync(join(cwd, 'disk.raw')).size, 16 * MIB)

  const forced = await runCli(['full', 'disk.raw', 'old.qcow2', '--force'], { cwd })
  t.equal(forced.status, 0, forced.stderr)
  qemuImg('compare', '-f', 'raw', '-F', 'qcow2', join(cwd, 'disk.raw'), join(cwd, 'old.qcow2'))
})

t.test('sources that full refuses are named in one line', async (t) => {
  const cwd = setUp(t)
  for (const source of [
    'none.raw',
    'bad\nname.raw',
    '.',
    'nbd://localhost/disk',
    'nbd+unix:///disk?socket=/none',
    'http://localhost/images/1',
  ]) {
    const { status, stdout, stderr } = await runCli(['full', source, 'b.qcow2'], { cwd })
    t.ok(status === 1 || status === 2, source)
    t.equal(stdout, '')
    t.match(stderr, /^qcow2-backup: [^\n]+: [^\n]+\n$/)
  }
  t.strictSame(readdirSync(cwd), ['disk.raw'])
})

t.test('names that look like options follow --', async (t) => {
  const cwd = setUp(t)
  const { status, stderr } = await runCli(['full', '--', 'disk.raw', '--b.qcow2'], { cwd })
  t.equal(status, 0, stderr)
  t.strictSame(readdirSync(cwd), ['--b.qcow2', 'disk.raw'])
})
