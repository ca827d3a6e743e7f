import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI, runCli } from '../../support/cli.ts'
import { qemuImg, qemuIo, run } from '../../support/qemu.ts'

const MIB = 2 ** 20

/** A raw disk of 4 MiB with data in the second MiB only. */
function rawDisk(test: Test): string {
  const path = join(test.testdir(), 'disk.raw')
  writeFileSync(path, '')
  truncateSync(path, 4 * MIB)
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.alloc(MIB, 'x'), 0, MIB, MIB)
  closeSync(fd)
  return path
}

t.test('extents of a raw disk prints the array and nothing else', async (t) => {
  const disk = rawDisk(t)
  const expected = [
    { start: 0, length: MIB, zero: true, hole: true },
    { start: MIB, length: MIB, zero: false, hole: false },
    { start: 2 * MIB, length: 2 * MIB, zero: true, hole: true },
  ]
  for (const args of [[], ['--json'], ['-f', 'raw'], ['--debug']]) {
    const { status, stdout, stderr } = await runCli(['extents', disk, ...args])
    t.equal(status, 0, stderr)
    // The debug log is on stderr, and each of its lines names a topic.
    const isLog = args.includes('--debug')
    t.match(stderr, isLog ? /^(qcow2-backup [a-z-]+: .*\n)+$/ : /^$/)
    t.strictSame(JSON.parse(stdout), expected)
    t.equal(stdout.trimEnd().split('\n').length, expected.length, 'an extent to a line')
    t.strictSame(Object.keys(JSON.parse(stdout)[0]), ['start', 'length', 'zero', 'hole'])
  }
})

t.test('a qcow2 chain, recognised by its magic, or raw when told so', async (t) => {
  const directory = t.testdir({ base: {}, top: {} })
  const base = join(directory, 'base', 'base.qcow2')
  const top = join(directory, 'top', 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', base, '1M')
  qemuIo(base, 'write -P 1 0 64k')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', '../base/base.qcow2', '-F', 'qcow2', top)
  qemuIo(top, 'write -z 128k 64k')

  const refused = await runCli(['extents', top])
  t.equal(refused.status, 1, 'the base lies elsewhere')
  t.equal(refused.stdout, '')
  t.match(refused.stderr, /^qcow2-backup: .*base\.qcow2.*\n$/)

  const allowed = ['--allow-path', '/dev', '--allow-path', join(directory, 'base')]
  const { status, stdout, stderr } = await runCli(['extents', ...allowed, top])
  t.equal(status, 0, stderr)
  t.strictSame(JSON.parse(stdout), [
    { start: 0, length: 65536, zero: false, hole: false },
    { start: 65536, length: 65536, zero: true, hole: true },
    { start: 131072, length: 65536, zero: true, hole: false },
    { start: 196608, length: MIB - 196608, zero: true, hole: true },
  ])

  const raw = JSON.parse((await runCli(['extents', '-f', 'raw', base])).stdout)
  t.notOk(raw[0].zero, "the image's own header")
})

t.test('--backing-format says what an image does not record', async (t) => {
  const directory = t.testdir()
  const base = join(directory, 'base.raw')
  const top = join(directory, 'top.qcow2')
  writeFileSync(base, Buffer.alloc(65536, 'x'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', top)
  // qemu-img no longer makes such images: the extension that records the format gets another type.
  const image = readFileSync(top)
  image.writeUInt32BE(0x12345678, image.indexOf('e2792aca', 0, 'hex'))
  writeFileSync(top, image)
  const refused = await runCli(['extents', top])
  t.equal(refused.status, 1)
  t.match(refused.stderr, /^qcow2-backup: [^\n]+\n$/)
  const { status, stdout, stderr } = await runCli(['extents', top, '--backing-format', 'raw'])
  t.equal(status, 0, stderr)
  t.strictSame(JSON.parse(stdout), [{ start: 0, length: 65536, zero: false, hole: false }])
})

t.test('extents of a source that cannot be read prints one line', async (t) => {
  const directory = t.testdir({ 'not.qcow2': 'x'.repeat(1024) })
  for (const args of [
    [join(directory, 'none.raw')],
    [directory],
    ['-f', 'qcow2', join(directory, 'not.qcow2')],
    ['/dev/null'],
  ]) {
    const { status, stdout, stderr } = await runCli(['extents', ...args])
    t.equal(status, 1, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, /^qcow2-backup: [^\n]+: [^\n]+\n$/)
  }
})

t.test('a reader that goes away is no error, a full disk is', async (t) => {
  const disk = join(t.testdir(), 'many.raw')
  const fd = openSync(disk, 'w')
  for (let i = 0; i < 4000; i++) writeSync(fd, 'x', i * 16384)
  closeSync(fd)
  const shell = (script: string) => run('bash', ['-c', script, 'bash', process.execPath, CLI, disk])

  const head = shell('set -o pipefail; "$1" "$2" extents "$3" | head -n 1')
  t.equal(head.status, 0)
  t.match(head.stdout, /^\[\{"start":0,.*\},\n$/)
  t.equal(head.stderr, '')

  const full = shell('"$1" "$2" extents "$3" > /dev/full')
  t.equal(full.status, 1)
  t.equal(full.stderr, 'qcow2-backup: standard output: no space left on device\n')
})
