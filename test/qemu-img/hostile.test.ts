/** What fuzzing (`npm run fuzz`) and its like found in the commands, each by its name. */
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isInTime, MEMORY } from '../support/bounds.ts'
import { CLI } from '../support/cli.ts'
import { effort } from '../support/effort.ts'
import { measuredAlone, nameBacking } from '../support/hostile.ts'
import { peek, peek64, poke, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuIo, run } from '../support/qemu.ts'

const MIB = 2 ** 20

t.setTimeout(1_800_000)

const COMMANDS = [
  ['info', '--backing-chain'],
  ['check'],
  ['map', '--output=json'],
  ['compare', 'sound.qcow2'],
  ['measure', '-O', 'qcow2'],
  ['extents'],
]

/** Runs a command on `disk.qcow2`; it ends by itself, in bounds. */
async function bounded(
  t: Test,
  cwd: string,
  args: readonly string[],
): Promise<{ status: number | null; stderr: string }> {
  const result = measuredAlone(cwd, [...args, 'disk.qcow2'])
  const name = args.join(' ')
  t.type(result.status, 'number', `${name} ends by itself`)
  t.ok(isInTime(result.seconds), `${name}: ${result.seconds} s`)
  t.ok(result.memory < MEMORY, `${name}: ${result.memory} KiB`)
  t.notMatch(result.stderr, /\n\s+at /, `${name}: no stack`)
  return result
}

/** A directory with a sound image of 1 MiB, once to be damaged. */
function sound(t: Test, options = 'cluster_size=4096') {
  const cwd = t.testdir()
  const image = join(cwd, 'disk.qcow2')
  for (const name of ['disk.qcow2', 'sound.qcow2']) {
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, join(cwd, name), '1M')
    qemuIo(join(cwd, name), 'write -P 7 0 64k')
  }
  return { cwd, image }
}

t.test('check -r all: a snapshot with a disk size that no number holds', async (t) => {
  const { cwd, image } = sound(t)
  qemuImg('snapshot', '-c', 's', image)
  qemuImg('snapshot', '-c', 't', image)
  const table = Number(peek64(image, 64))
  // The second entry's extra data is cut to a size alone, so that the table is written anew.
  const first = 40 + peek(image, table + 36, 4).readUInt32BE() + 2
  const second = table + Math.ceil(first / 8) * 8
  const diskSize = (1n << 64n) - 511n
  poke(image, table + 48, diskSize)
  const extra = peek(image, second + 36, 4).readUInt32BE()
  const rest = peek(image, second + 40 + extra, 2)
  poke(image, second + 36, 8)
  poke(image, second + 48, rest)
  t.equal((await bounded(t, cwd, ['check', '-r', 'all'])).status, 0)
  t.equal(peek64(image, Number(peek64(image, 64)) + 48), diskSize, 'as it was')
})

/** An image of 1 MiB whose L1 entries all name one L2 table, of which each second cluster is zero. */
function overAndOver(path: string, clusterBits: number): void {
  const clusterSize = 2 ** clusterBits
  const entries = (MIB - 3 * clusterSize) / 8
  const bytes = Buffer.alloc(MIB)
  bytes.write('514649fb00000003', 'hex')
  bytes.writeUInt32BE(clusterBits, 20)
  bytes.writeBigUInt64BE(BigInt(entries) * BigInt(clusterSize / 8) * BigInt(clusterSize), 24)
  bytes.writeUInt32BE(entries, 36)
  bytes.writeBigUInt64BE(BigInt(3 * clusterSize), 40)
  bytes.writeBigUInt64BE(BigInt(2 * clusterSize), 48)
  bytes.writeUInt32BE(1, 56)
  bytes.writeUInt32BE(4, 96)
  bytes.writeUInt32BE(112, 100)
  for (let at = clusterSize; at < 2 * clusterSize; at += 16) bytes.writeBigUInt64BE(1n, at)
  for (let i = 0; i < entries; i++) {
    bytes.writeBigUInt64BE((1n << 63n) | BigInt(clusterSize), 3 * clusterSize + i * 8)
  }
  writeFileSync(path, bytes)
}

for (const bits of effort([16], [9, 16])) {
  t.test(`one L2 table that all of a full L1 table names, clusters 2^${bits}`, async (t) => {
    const { cwd, image } = sound(t)
    overAndOver(image, bits)
    t.equal(sizeOf(image), MIB)
    for (const args of COMMANDS.slice(1)) {
      // What is different is found at once, but not with itself.
      const command = args[0] === 'compare' ? ['compare', '-U', 'disk.qcow2'] : args
      const { status, stderr } = await bounded(t, cwd, command)
      t.not(status, 0, `${command}`)
      t.match(stderr, 'refers to the same tables over and over', `${command}`)
    }
  })
}

t.test('check: ten thousand snapshots that share a large L1 table without entries', async (t) => {
  const { cwd, image } = sound(t)
  truncateSync(image, MIB)
  const count = 10_000
  const table = 131072
  for (let i = 0; i < count; i++) {
    poke(image, table + i * 56, 786432n)
    poke(image, table + i * 56 + 8, 32768)
    poke(image, table + i * 56 + 36, 16)
  }
  poke(image, 60, count)
  poke(image, 64, BigInt(table))
  t.match((await bounded(t, cwd, ['check'])).stderr, 'refers to the same tables over and over')
})

t.test('no file is opened that an image may not name', async (t) => {
  const { cwd } = sound(t)
  const outside = join(cwd, 'secret')
  writeFileSync(outside, 'secret'.repeat(1000))
  const home = join(cwd, 'disk')
  mkdirSync(home)
  qemuImg('create', '-q', '-f', 'qcow2', join(home, 'disk.qcow2'), '1M')
  symlinkSync('../secret', join(home, 'link'))
  const names = ['../secret', 'link', `json:{"driver":"file","filename":"${outside}"}`]
  for (const [index, name] of names.entries()) {
    nameBacking(join(home, 'disk.qcow2'), name, 'raw')
    // In a quick run each name meets every third command, in turn.
    const every = effort(3, 1)
    for (const [command, ...args] of COMMANDS.filter((_, i) => i % every === index % every)) {
      const other = args.map((arg) => (arg === 'sound.qcow2' ? join(cwd, arg) : arg))
      const log = join(cwd, 'strace.log')
      const program = [process.execPath, CLI, command, ...other, join(home, 'disk.qcow2')]
      // With -y the file that was opened is told, whatever name it was opened by.
      const trace = [
        '-f',
        '-y',
        '--seccomp-bpf',
        '-e',
        'trace=open,openat,openat2',
        '-o',
        log,
        '-E',
        'NODE_OPTIONS',
      ]
      run('strace', [...trace, ...program])
      const opened = peek(log, 0, sizeOf(log)).toString()
      t.match(opened, 'disk.qcow2', `${command}: it is traced`)
      // What is only found, not opened, cannot be read.
      const read = opened.split('\n').filter((line) => !line.includes('O_PATH'))
      t.notMatch(read.join('\n'), /secret|"link"|\/link"/, `${command}: ${name}`)
    }
  }
})
