import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../../support/cli.ts'
import { startNbdkit } from '../../support/nbdkit.ts'
import { qemuImg, qemuIo } from '../../support/qemu.ts'
import { startQemuNbd } from '../../support/qemu-nbd.ts'

const K = 1024

/** A disk of 4 MiB with bitmap `sunday`, since which it was written to, zeroed and trimmed. */
function makeDisk(t: Test): string {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '4M')
  qemuIo(disk, 'write -P 1 0 1M')
  qemuImg('bitmap', '--add', disk, 'sunday')
  qemuIo(
    disk,
    'write -P 2 64k 128k',
    'write -z 256k 64k',
    'discard 384k 64k',
    'write -P 3 4032k 64k',
  )
  return disk
}

const EXPECTED = [
  [0, 64, false, false],
  [64, 128, true, false],
  [192, 64, false, false],
  [256, 64, true, true],
  [320, 64, false, false],
  [384, 64, true, true],
  [448, 576, false, false],
  [1024, 3008, false, true],
  [4032, 64, true, false],
].map(([start, length, dirty, zero]) => {
  return { start: Number(start) * K, length: Number(length) * K, dirty, zero }
})

t.test('extents --bitmap prints the same of a file and over NBD', async (t) => {
  const disk = makeDisk(t)
  const { uri } = await startQemuNbd(t, disk, { bitmaps: ['sunday'] })
  const nbd = await runCli(['extents', uri, '--bitmap', 'sunday'])
  t.equal(nbd.status, 0, nbd.stderr)
  t.equal(nbd.stderr, '')
  const extents = JSON.parse(nbd.stdout)
  // The rest of a granule of which one byte was written is zero, as QEMU knows.
  t.strictSame(extents.slice(0, 8), EXPECTED.slice(0, 8))
  t.ok(extents.slice(8).every(({ dirty }: { dirty: boolean }) => dirty))
  t.strictSame(Object.keys(extents[0]), ['start', 'length', 'dirty', 'zero'])
  t.equal(nbd.stdout.trimEnd().split('\n').length, extents.length, 'an extent to a line')

  const file = await runCli(['extents', disk, '--bitmap', 'sunday'])
  t.equal(file.status, 0, file.stderr)
  t.strictSame(JSON.parse(file.stdout), EXPECTED)
})

t.test('without a bitmap, and with the options of connections', async (t) => {
  const { uri } = await startQemuNbd(t, makeDisk(t))
  const args = ['extents', uri, '--connections', '2', '--timeout', '5', '-f', 'raw', '--json']
  const { status, stdout, stderr } = await runCli(args)
  t.equal(status, 0, stderr)
  t.strictSame(JSON.parse(stdout).slice(0, 2), [
    { start: 0, length: 256 * K, zero: false, hole: false },
    { start: 256 * K, length: 64 * K, zero: true, hole: true },
  ])
})

t.test('impossible options of extents --bitmap are refused', async (t) => {
  const disk = makeDisk(t)
  const { uri } = await startQemuNbd(t, disk)
  const slow = await startNbdkit(t, '--filter=delay', 'memory', '1M', 'delay-open=10')
  for (const [args, status, message] of [
    [[uri, '--bitmap', 'sunday'], 1, /: does not export bitmap 'sunday'; .* qemu-nbd --bitmap$/],
    [[uri, '--bitmap', ''], 2, /^--bitmap: the name is empty$/],
    [[uri, '--detect-zeroes'], 2, /^--detect-zeroes: is only supported for files$/],
    [
      [disk, '--bitmap', 'sunday', '--detect-zeroes'],
      2,
      /^--detect-zeroes: cannot be combined with/,
    ],
    [[disk, '--timeout', '5'], 2, /^--timeout: is only supported for NBD and imageio/],
    [[disk, '--connections', '5'], 2, /^--connections: is only supported for NBD and imageio/],
    [[uri, '--timeout', '0'], 2, /^--timeout: /],
    [[uri, '--timeout', 'x'], 2, /^--timeout: 'x' is not a whole number$/],
    [[uri, '-f', 'qcow2'], 2, /^--format: an NBD export is a raw disk$/],
    [['nbd:///x'], 2, /^nbd:\/\/\/x: the host is missing; /],
    [
      [slow.uri(), '--timeout', '1'],
      1,
      /: cannot connect: no answer within 1 s .*; --timeout sets/,
    ],
  ] as const) {
    const result = await runCli(['extents', ...args])
    t.equal(result.status, status, args.join(' '))
    t.equal(result.stdout, '')
    t.match(result.stderr, /^qcow2-backup: [^\n]+\n$/)
    t.match(result.stderr.slice('qcow2-backup: '.length, -1), message)
  }
})
