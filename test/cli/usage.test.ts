import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { run } from '../../lib/cli/run.ts'
import { runCli } from '../support/cli.ts'

const { version } = createRequire(import.meta.url)('qcow2-backup/package.json')

/** Runs the command line in this process, which is quicker. */
async function runHere(test: Test, args: string[]): Promise<{ status: number; stderr: string }> {
  const capture = test.capture(process.stderr, 'write', () => true)
  const status = await run(() => args)
  capture.restore()
  return { status, stderr: capture.args().join('') }
}

const NO_STDOUT = 'standard output is not supported as a target; ./- names a file'

t.test('wrong usage: one line and status 2', async (t) => {
  const cases: [args: string, line: string][] = [
    ['', 'COMMAND: missing; qcow2-backup --help lists them'],
    ['--foo', '--foo: unknown option'],
    ['--foo full a b', '--foo: unknown option'],
    ['nosuch a b', 'nosuch: unknown command'],
    ['full', 'SOURCE: missing'],
    ['full a', 'TARGET: missing'],
    ['full a b c', 'arguments: expected 2, got 3'],
    ['full --foo a b', '--foo: unknown option'],
    ['full a b --forc', '--forc: unknown option'],
    ['full a b --cluster-size', '--cluster-size: needs a value'],
    [
      'full a b --cluster-size 64X',
      "--cluster-size: '64X' is not a size; write bytes or 64K, 1M, 2G, 1T",
    ],
    [
      'full a b --rate-limit=-1',
      "--rate-limit: '-1' is not a size; write bytes or 64K, 1M, 2G, 1T",
    ],
    ['full a b --compress lz4', "--compress: 'lz4' is not one of zlib, zstd"],
    ['full a b --compression-level high', "--compression-level: 'high' is not a whole number"],
    ['full a b --requests 1.5', "--requests: '1.5' is not a whole number"],
    ['full a b --requests -3', "--requests: '-3' is not a whole number"],
    ['full a b --engine aio', "--engine: 'aio' is not one of auto, io_uring, threads"],
    ['full a b --direct yes', "--direct: 'yes' is not one of auto, on, off"],
    ['full a b --progress bar', "--progress: 'bar' is not one of json"],
    ['full a b -f vmdk', "--format: 'vmdk' is not one of raw, qcow2"],
    ['full a b --backing-format qed', "--backing-format: 'qed' is not one of raw, qcow2"],
    ['full a b --connections 4', '--connections: is only supported for NBD and imageio sources'],
    ['full nbd://h/x b --timeout 0', "--timeout: '0' is not a number of seconds from 1 to 86400"],
    [
      'full nbd://h/x b --timeout 86401',
      "--timeout: '86401' is not a number of seconds from 1 to 86400",
    ],
    ['full a b --cluster-size 1000', '--cluster-size: 1000 is not a power of two from 512 to 2M'],
    ['restore a b --no-hole', '--no-hole: is only supported for NBD exports'],
    ['diff a b --bitmap x --force', '--force: can only be combined with --output'],
    ['diff a b --output c --enable', '--enable: cannot be combined with --output or --merge-into'],
    ['diff a b --bitmap x -f raw', '--format: a raw image cannot store a bitmap'],
    ['full a b --connections four', "--connections: 'four' is not a whole number"],
    ['full a - --force', '--force: with the target -: standard output has nothing to replace'],
    [
      'full a - --verify',
      '--verify: with the target -: a stream cannot be read back; compare it where it was stored',
    ],
    [
      'incremental a - --bitmap b --backing c --compress zstd',
      '--compress: with the target -: the layout of a stream is known before its data is: compress the ' +
        'stream itself',
    ],
    [
      'incremental a b --bitmap c --backing d --backing-name e',
      '--backing-name: needs the target -',
    ],
    ['restore a -', `TARGET: ${NO_STDOUT}`],
    ['restore -O qcow2 a -', `TARGET: ${NO_STDOUT}`],
    ['snapshot a -', `OVERLAY: ${NO_STDOUT}`],
    ['restore a b -O vdi', "--output-format: 'vdi' is not one of raw, qcow2"],
    ['restore a', 'TARGET: missing'],
    ['extents', 'SOURCE: missing'],
    ['extents a b', 'arguments: expected 1, got 2'],
    ['extents a --force', '--force: unknown option'],
  ]
  for (const [text, line] of cases) {
    const args = text.split(' ').filter(Boolean)
    t.strictSame(
      await runHere(t, args),
      { status: 2, stderr: `qcow2-backup: ${line}\n` },
      text || 'no arguments',
    )
  }
  t.strictSame(
    await runCli(['full', 'a']),
    { status: 2, signal: null, stdout: '', stderr: 'qcow2-backup: TARGET: missing\n' },
    'and so as a process',
  )
})

t.test('a wrong value from the environment is named by its variable', async (t) => {
  for (const [name, choices] of [
    ['QCOW2_BACKUP_ENGINE', 'auto, io_uring, threads'],
    ['QCOW2_BACKUP_DIRECT', 'auto, on, off'],
  ]) {
    const { status, stderr } = await runCli(['full', 'a', 'b'], { env: { [name]: 'fast' } })
    t.equal(status, 2)
    t.equal(stderr, `qcow2-backup: ${name}: 'fast' is not one of ${choices}\n`)
  }
})

t.test('a line break in an argument stays inside the line', async (t) => {
  const { status, stderr } = await runHere(t, ['full', 'a', 'b', '--engine', 'x\ny'])
  t.equal(status, 2)
  t.match(stderr, /^qcow2-backup: --engine: 'x\\x0ay' is not one of [^\n]*\n$/)
})

t.test('--debug adds the stack, wherever it stands', async (t) => {
  for (const args of [
    ['--debug', 'full'],
    ['full', '--debug'],
  ]) {
    const { status, stderr } = await runHere(t, args)
    t.equal(status, 2)
    t.match(stderr, /^qcow2-backup: SOURCE: missing\n(.*\n)+ +at /)
  }
})

t.test('help is printed for the program and for each command', async (t) => {
  for (const args of [['--help'], ['-h'], ['help']]) {
    const { status, stdout, stderr } = await runCli(args)
    t.equal(status, 0)
    t.equal(stderr, '')
    t.match(stdout, /^Usage: qcow2-backup /)
    t.match(stdout, /Examples:\n/)
    for (const command of ['full', 'restore', 'extents']) t.match(stdout, `\n  ${command} `)
  }
  for (const command of ['full', 'restore', 'extents']) {
    for (const args of [
      [command, '--help'],
      ['help', command],
    ]) {
      const { status, stdout, stderr } = await runCli(args)
      t.equal(status, 0)
      t.equal(stderr, '')
      t.match(stdout, `Usage: qcow2-backup ${command} `)
      t.match(stdout, `Examples:\n  qcow2-backup ${command} `)
    }
  }
})

t.test('help that nobody reads to its end is no error', async (t) => {
  for (const args of ['--help', 'full --help', 'map --help']) {
    const onStart = (child: ChildProcess) => void child.stdout?.destroy()
    const { status, stderr } = await runCli(args.split(' '), { onStart })
    t.strictSame([status, stderr], [0, ''], args)
  }
})

t.test('what needs no addon does not load it', async (t) => {
  const hook = join(t.testdir(), 'hook.cjs')
  writeFileSync(hook, "process.dlopen = () => { throw new Error('the addon was loaded') }")
  const env = { NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --require ${hook}` }
  t.strictSame(await runCli(['--version'], { env }), {
    status: 0,
    signal: null,
    stdout: `${version}\n`,
    stderr: '',
  })
  const { status, stderr } = await runCli(['extents', '/none/disk'], { env })
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: \/none\/disk: no such file or directory\n$/)
})
