/** Disks compared over NBD: what differs goes to a file, or into a bitmap of another image. */
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  diffDisks,
  diffToBitmap,
  fullBackup,
  incrementalBackup,
  listBitmaps,
  readBitmap,
} from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { runCli } from '../support/cli.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

t.setTimeout(1_800_000)

const K = 1024

interface Run {
  start: number
  length: number
  dirty: boolean
}

/** A disk, its last backup, and the bitmap that recorded what changed since. */
async function changedDisk(t: Test, seed: number) {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('disk'), '24M')
  qemuIo(at('disk'), 'write -P 1 0 6M', 'write -P 2 10M 1M', 'write -z 12M 1M')
  await fullBackup(at('disk'), at('sunday'))
  qemuImg('bitmap', '--add', '-g', '64k', at('disk'), 'true')
  const random = randomNumbers(seed)
  for (let i = 0; i < 10; i++) {
    const kind = ['write -P 7', 'write -z', 'discard'][random(3)]
    qemuIo(at('disk'), `${kind} ${random(44 * K) * 512} ${512 * (1 + random(700))}`)
  }
  return { at, disk: at('disk'), sunday: at('sunday') }
}

/** The granules in which two images differ. */
function differing(a: string, b: string, granularity: number): number[] {
  const [x, y] = [a, b].map((image) => {
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, `${image}.raw`)
    return readFileSync(`${image}.raw`)
  })
  const found: number[] = []
  for (let at = 0; at < x.length; at += granularity) {
    if (!x.subarray(at, at + granularity).equals(y.subarray(at, at + granularity))) found.push(at)
  }
  return found
}

function granules(runs: readonly Run[], granularity: number): number[] {
  return runs
    .filter(({ dirty }) => dirty)
    .flatMap(({ start, length }) => {
      return Array.from({ length: length / granularity }, (_, i) => start + i * granularity)
    })
}

for (const shared of [8, 1]) {
  t.test(`a live export, ${shared} clients at once: exactly what differs`, async (t) => {
    for (const seed of [1, 2, 3]) {
      const { disk, sunday, at } = await changedDisk(t, seed)
      for (const granularity of [512, 64 * K]) {
        const { uri } = await startQemuNbd(t, disk, { shared })
        const runs: Run[] = []
        const result = await diffDisks(uri, sunday, {
          granularity,
          take: (some) => void runs.push(...some),
        })
        const expected = differing(disk, sunday, granularity)
        t.strictSame(granules(runs, granularity), expected)
        t.equal(result.dirtyBytes, expected.length * granularity)
        t.equal(result.virtualSize, 24 * K * K)
        t.equal(runs[0].start, 0)
        const last = runs.at(-1)!
        t.equal(last.start + last.length, result.virtualSize)
      }
      // The other way round.
      const { uri } = await startQemuNbd(t, sunday, { shared })
      copyFileSync(disk, at('copy'))
      await diffToBitmap(at('copy'), uri, 'b')
      const found: Run[] = []
      await readBitmap(at('copy'), 'b', (some) => void found.push(...some))
      t.strictSame(granules(found, 64 * K), differing(disk, sunday, 64 * K))
    }
  })
}

t.test('merged into a bitmap: an increment by it is that by the true bitmap', async (t) => {
  const { disk, sunday, at } = await changedDisk(t, 5)
  const { uri } = await startQemuNbd(t, disk)
  qemuImg('create', '-q', '-f', 'qcow2', at('holder'), '24M')
  const options = { mergeInto: at('holder'), bitmap: 'found', granularity: 64 * K }
  await diffDisks(uri, sunday, options)
  t.match(await listBitmaps(at('holder')), [{ name: 'found', recording: false }])
  t.equal(qemuImgCheck(at('holder')).status, 0)
  // Once more, into what is there: the same.
  const [{ dirtyBytes }] = await listBitmaps(at('holder'))
  await diffDisks(uri, sunday, options)
  t.equal((await listBitmaps(at('holder')))[0].dirtyBytes, dirtyBytes)

  copyFileSync(disk, at('copy'))
  qemuImg('bitmap', '--add', '--disable', at('copy'), 'found')
  qemuImg('bitmap', '--merge', 'found', '-b', at('holder'), '-F', 'qcow2', at('copy'), 'found')
  await incrementalBackup(at('copy'), at('by-found'), { bitmap: 'found', backing: sunday })
  await incrementalBackup(at('copy'), at('by-true'), { bitmap: 'true', backing: sunday })
  t.equal(qemuImg('compare', at('by-found'), at('by-true')), 'Images are identical.\n')
  t.equal(qemuImg('compare', at('by-found'), disk), 'Images are identical.\n')
})

t.test('what cannot be read counts as different, and is told', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  writeFileSync(at('raw'), Buffer.alloc(16 * K * K, 3))
  const bad = ['--filter=error', 'file', at('raw'), 'error-pread=EIO', 'error-pread-rate=100%']
  const server = await startNbdkit(t, ...bad)
  const result = await diffDisks(server.uri(), at('raw'))
  t.equal(result.dirtyBytes, 16 * K * K)
  t.equal(
    result.unreadable.reduce((sum, { length }) => sum + length, 0),
    16 * K * K,
  )
  t.equal(result.unreadable[0].side, 0)
  t.match(result.unreadable[0].why, /Input\/output error|input\/output error/)
})

t.test('the command: a file, the standard output, and what goes wrong', async (t) => {
  const { disk, sunday, at } = await changedDisk(t, 6)
  const cwd = at('.')
  const { uri, stop } = await startQemuNbd(t, disk)
  const done = await runCli(['diff', uri, sunday, '--output', 'out.json'], { cwd })
  t.equal(done.status, 0, done.stderr)
  const runs: Run[] = JSON.parse(readFileSync(at('out.json'), 'utf8'))
  t.strictSame(granules(runs, 64 * K), differing(disk, sunday, 64 * K))
  const again = await runCli(['diff', uri, sunday, '--output', 'out.json'], { cwd })
  t.equal(again.status, 1)
  t.match(again.stderr, /^qcow2-backup: out\.json: .*exists.*\n$/)
  const piped = await runCli(['diff', uri, sunday, '--output', '-', '--json'], { cwd })
  t.strictSame(JSON.parse(piped.stdout), runs)

  qemuImg('create', '-q', '-f', 'qcow2', at('small'), '4M')
  const merge = ['--merge-into', 'small', '--bitmap', 'b']
  const small = await runCli(['diff', uri, sunday, ...merge], { cwd })
  t.equal(small.status, 1)
  t.match(small.stderr, /^qcow2-backup: small: has a disk of 4194304 bytes, .*\n$/)
  const usage: [string[], RegExp][] = [
    [['diff', uri, sunday, '--bitmap', 'b'], /an NBD export cannot store a bitmap/],
    [['diff', uri, sunday, '--merge-into', 'small'], /--bitmap: missing/],
    [
      ['diff', uri, sunday, '--output', 'x', '--bitmap', 'b'],
      /--bitmap: there is no image to merge into/,
    ],
    [['diff', uri, sunday, '--output', 'x', '--granularity', '3'], /--granularity: 3 is not/],
    [
      ['diff', disk, sunday, '--bitmap', 'b', '--force'],
      /--force: can only be combined with --output/,
    ],
  ]
  for (const [args, words] of usage) {
    const { status, stderr } = await runCli(args, { cwd })
    t.equal(status, 2, stderr)
    t.match(stderr, words)
  }
  t.notOk(existsSync(at('x')))
  await stop()
  const gone = await runCli(['diff', uri, sunday, '--output', 'y'], { cwd })
  t.equal(gone.status, 1)
  t.match(gone.stderr, /^qcow2-backup: nbd\+unix:.*: cannot connect: .*\n$/)
  t.notOk(existsSync(at('y')))
})

t.test('a server that is killed meanwhile: an error, and nothing under the name', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  // Progress comes every 64 MiB.
  writeFileSync(at('raw'), Buffer.alloc(256 * K * K, 3))
  const slow = ['--filter=delay', 'file', at('raw'), 'rdelay=200ms']
  const server = await startNbdkit(t, ...slow)
  const args = ['diff', server.uri(), 'raw', '--output', 'out', '--progress', 'json']
  // It reports progress when it has compared something.
  let killed: Promise<void> | undefined
  const { status, stderr } = await runCli(args, {
    cwd: dir,
    onStderr() {
      killed ??= server.stop('SIGKILL')
    },
  })
  await killed
  t.equal(status, 1, stderr)
  t.match(stderr, /qcow2-backup: nbd\+unix:.*\n$/)
  t.notOk(existsSync(at('out')))
})

t.test('a running machine gets its bitmap back, with what is written meanwhile', async (t) => {
  const { disk, sunday, at } = await changedDisk(t, 7)
  qemuImg('bitmap', '--remove', disk, 'true')
  qemuImg('create', '-q', '-f', 'qcow2', at('bits'), '24M')
  const daemon = await startStorageDaemon(t)
  await daemon.open('disk0', disk)
  const guest = await daemon.export('disk0', { name: 'guest', writable: true })
  // From now on what is written is recorded; what was written before is compared.
  await daemon.addBitmap('disk0', 'sunday')
  const write = (...commands: string[]) => qemuIo({ path: guest, format: 'raw' }, ...commands)
  write('write -P 99 3M 64k')
  await diffDisks(guest, sunday, { mergeInto: at('bits'), bitmap: 'found' })
  write('write -P 98 20M 64k', 'write -P 98 100k 3k')
  await daemon.open('bits', at('bits'))
  const bitmaps = [{ node: 'bits', name: 'found' }]
  await daemon.qmp('block-dirty-bitmap-merge', { node: 'disk0', target: 'sunday', bitmaps })

  const source = await daemon.export('disk0', {
    name: 'backup',
    bitmaps: [{ node: 'disk0', name: 'sunday' }],
  })
  await incrementalBackup(source, at('monday'), { bitmap: 'sunday', backing: sunday })
  await daemon.stop()
  t.equal(qemuImg('compare', at('monday'), disk), 'Images are identical.\n')
})
