import { copyFileSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, incrementalBackup } from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { CLI } from '../support/cli.ts'
import { damage } from '../support/damage.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { ours, sameAsQemuImg, theirs } from '../support/parity.ts'
import { peek, peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

/** Makes an image with data, zero clusters and two snapshots. */
function makeImage(path: string): void {
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path, '4M')
  qemuIo({ path, format: 'qcow2' }, 'write -P 1 0 1M', 'write -z 1M 128k', 'write -P 2 3M 300k')
  qemuImg('snapshot', '-c', 'one', path)
  qemuIo({ path, format: 'qcow2' }, 'write -P 3 512k 600k')
  qemuImg('snapshot', '-c', 'two', path)
  qemuIo({ path, format: 'qcow2' }, 'write -P 4 64k 64k')
}

const ORIGINAL = join(t.testdir(), 'original')
makeImage(ORIGINAL)

/** A copy of that image. */
function image(path: string): void {
  copyFileSync(ORIGINAL, path)
}

/** Where the first refcount block is. */
function blockOf(path: string): number {
  return Number(peek64(path, Number(peek64(path, 48))))
}

const CASES: [string, (path: string) => void][] = [
  ['nothing wrong', () => {}],
  ['a leaked cluster', (path) => poke(path, blockOf(path) + 2 * 900, Buffer.from([0, 1]))],
  ['a refcount too low', (path) => poke(path, blockOf(path) + 2 * 20, Buffer.from([0, 1]))],
  ['a refcount of zero', (path) => poke(path, blockOf(path) + 2 * 20, Buffer.from([0, 0]))],
  ['all refcounts lost', (path) => poke(path, blockOf(path), Buffer.alloc(4096))],
  ['no refcount blocks', (path) => poke(path, Number(peek64(path, 48)), Buffer.alloc(4096))],
  ['a wrong COPIED flag', (path) => poke(path, l2(path), peek64(path, l2(path)) ^ (1n << 63n))],
  ['a zero cluster out of place', (path) => poke(path, l2(path) + 8 * 300, 0x201n)],
  ['a dirty image', (path) => poke(path, 72, 1n)],
  ['a corrupt image', (path) => poke(path, 72, 2n)],
  ['a snapshot without its sizes', (path) => shortenSnapshot(path)],
]

/** Where the first L2 table is. */
function l2(path: string): number {
  return Number(peek64(path, Number(peek64(path, 40))) & 0x00fffffffffffe00n)
}

/** Takes the extra data from the last entry of the snapshot table, as old programs wrote it. */
function shortenSnapshot(path: string): void {
  const table = Number(peek64(path, 64))
  const entry = peek(path, table, 40)
  const length =
    (40 + entry.readUInt32BE(36) + entry.readUInt16BE(12) + entry.readUInt16BE(14) + 7) & ~7
  const last = table + length
  const extra = peek(path, last, 40).readUInt32BE(36)
  const rest = peek(path, last + 40 + extra, 4)
  poke(path, last + 36, 0)
  poke(path, last + 40, rest)
}

for (const [name, change] of CASES) {
  t.test(`repaired as qemu-img repairs it: ${name}`, async (t) => {
    const dir = t.testdir()
    for (const how of ['leaks', 'all']) {
      const copies = ['a', 'b'].map((copy) => join(dir, copy))
      image(copies[0])
      change(copies[0])
      copyFileSync(copies[0], copies[1])
      copyFileSync(copies[0], join(dir, 'x'))
      const mine = await ours(['check', '-r', how, 'x'], dir)
      copyFileSync(join(dir, 'x'), copies[0])
      copyFileSync(copies[1], join(dir, 'x'))
      const qemu = theirs(['check', '-r', how, 'x'], dir)
      t.strictSame(mine, qemu, `the same output for -r ${how}`)
      t.equal(theirs(['check', 'a'], dir).status, theirs(['check', 'x'], dir).status)
      if (how === 'all') {
        t.equal(theirs(['check', 'a'], dir).status, 0, 'qemu-img finds nothing any more')
        t.equal(peek64(copies[0], 72), 0n, 'neither dirty nor corrupt')
      }
      t.not(theirs(['compare', 'a', 'x'], dir).status, 1, 'the guest sees the same')
      for (const snapshot of THOROUGH ? ['one', 'two'] : [how === 'all' ? 'one' : 'two']) {
        const raws = [copies[0], join(dir, 'x')].map((path, i) => {
          const raw = join(dir, `raw${i}`)
          qemuImg('convert', '-l', `snapshot.name=${snapshot}`, '-O', 'raw', path, raw)
          return readFileSync(raw)
        })
        t.ok(raws[0].equals(raws[1]), `snapshot ${snapshot} is as qemu-img leaves it`)
      }
    }
  })
}

t.test(
  'a snapshot table past the end of the file is given up as qemu-img gives it up',
  async (t) => {
    const dir = t.testdir()
    for (const clusters of [0, 1, 2, 100]) {
      for (const copy of ['a', 'b']) {
        const path = join(dir, copy)
        image(path)
        const end = Math.ceil(statSync(path).size / 4096)
        poke(path, 64, BigInt((end + clusters) * 4096))
      }
      const name = `${clusters} clusters past the end`
      const [mine, qemu] = [
        await ours(['check', '-r', 'all', 'a'], dir),
        theirs(['check', '-r', 'all', 'b'], dir),
      ]
      t.strictSame(mine, qemu, name)
      t.strictSame(
        theirs(['check', 'a'], dir),
        theirs(['check', 'b'], dir),
        `${name}: what is left`,
      )
    }
  },
)

/** Of how many writes and syncs one fails. */
const EVERY = effort(5, 1)

t.test('a repair that fails at any of its writes can be begun again', async (t) => {
  const dir = t.testdir()
  const broken = join(dir, 'broken')
  image(broken)
  poke(broken, blockOf(broken) + 2 * 20, Buffer.alloc(64))
  poke(broken, l2(broken), peek64(broken, l2(broken)) ^ (1n << 63n))
  poke(broken, 72, 3n)
  shortenSnapshot(broken)
  const whole = join(dir, 'whole')
  copyFileSync(broken, whole)
  t.equal((await ours(['check', '-r', 'all', whole])).status, 0)
  const path = join(dir, 'x')
  const fails = (call: string, n: number): boolean => {
    copyFileSync(broken, path)
    // Of one thread: strace counts the calls of each.
    const strace = ['-E', 'UV_THREADPOOL_SIZE=1', '-f', '-qq', '-o', '/dev/null', '-P', path]
    const inject = `--inject=${call}:error=EIO:when=${n}`
    const check = [process.execPath, CLI, 'check', '-r', 'all', path]
    return run('strace', [...strace, inject, ...check]).status !== 0
  }
  let failed = 0
  let call = 'pwrite64'
  for (let n = 1; ; n += EVERY) {
    if (!fails(call, n)) {
      if (call === 'fdatasync') break
      call = 'fdatasync'
      n = 1 - EVERY
      continue
    }
    failed++
    t.equal(qemuImg('compare', path, whole), 'Images are identical.\n', `${call} ${n} fails`)
    t.equal((await ours(['check', '-r', 'all', path])).status, 0, 'repaired')
    t.equal(theirs(['check', path]).status, 0)
    t.equal(qemuImg('compare', path, whole), 'Images are identical.\n')
  }
  t.ok(failed * EVERY > 8, `${failed} writes and syncs`)
})

t.test('what is damaged at random is never worse for a repair', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'x')
  const before = join(dir, 'before')
  for (let seed = 1; seed <= effort(6, 40); seed++) {
    image(path)
    const done = damage(path, randomNumbers(seed))
    copyFileSync(path, before)
    const { status } = await ours(['check', '-f', 'qcow2', '-r', 'all', 'x'], dir)
    const compared = theirs(['compare', '-f', 'qcow2', '-F', 'qcow2', before, path])
    // 2 and above: one of them cannot be read.
    t.not(compared.status, 1, `SEED=${seed}: the guest sees the same`, { done })
    if (status === 0) {
      t.equal(theirs(['check', '-f', 'qcow2', path]).status, 0, `SEED=${seed}: qemu-img agrees`, {
        done,
      })
    }
  }
})

t.test(
  'refcounts that no table can hold are left as they are, and the image stays one',
  async (t) => {
    const dir = t.testdir()
    const path = join(dir, 'x')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', path, '1M')
    const table = Number(peek64(path, 48))
    // Blocks that lie a TiB away: the table for them would take 64 MiB, of which QEMU takes 8.
    for (let i = 0; i < 4; i++) poke(path, table + i * 8, BigInt(2 ** 40 - 512 * (i + 1) * 4096))
    const { status, stderr } = await ours(['check', '-r', 'all', 'x'], dir)
    t.match({ status, stderr }, { status: 1, stderr: /Check failed: File too large/ })
    t.equal(theirs(['info', 'x'], dir).status, 0, 'QEMU opens it')
  },
)

t.test('a shared table of which QEMU has left one user is repaired as qemu-img does', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  // An L2 table maps 2 MiB.
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', at('disk'), '16M')
  qemuIo(at('disk'), 'write -P 1 0 16M')
  qemuImg('bitmap', '--add', at('disk'), 'b')
  await fullBackup(at('disk'), at('full'), { clusterSize: 4096 })
  qemuIo(at('disk'), 'write -z 0 16M')
  const backing = at('full')
  await incrementalBackup(at('disk'), at('inc'), { bitmap: 'b', backing, clusterSize: 4096 })
  t.equal(theirs(['check', 'inc'], dir).status, 0, 'that all share one is sound')
  for (let i = 0; i < 7; i++) qemuIo(at('inc'), `write -P 2 ${i * 2}M 4k`)
  t.equal(theirs(['check', 'inc'], dir).status, 2, 'a flag is missing')
  copyFileSync(at('inc'), at('x'))
  const qemu = theirs(['check', '-r', 'all', 'x'], dir)
  copyFileSync(at('x'), at('repaired'))
  copyFileSync(at('inc'), at('x'))
  t.strictSame(await ours(['check', '-r', 'all', 'x'], dir), qemu)
  t.ok(readFileSync(at('x')).equals(readFileSync(at('repaired'))), 'byte by byte')
  qemuIo(at('x'), 'write -P 3 14M 4k')
  t.equal(theirs(['check', 'x'], dir).status, 0, 'and it stays sound')
})

t.test('wrong use of check is refused as qemu-img does', async (t) => {
  const dir = t.testdir({ raw: 'x'.repeat(1024) })
  qemuImg('create', '-q', '-f', 'qcow2', join(dir, 'image'), '1M')
  const cases = [
    ['-r', 'some', 'image'],
    ['-r', 'image'],
    ['-r', 'all'],
    ['-r', 'all', 'nothing'],
    ['-r', 'all', 'raw'],
    ['raw'],
    ['-T', 'fast', 'image'],
    ['--output=xml', 'image'],
    ['-r', 'all', '-U', 'image'],
    ['-q', '-r', 'all', 'image'],
  ]
  for (const args of cases) await sameAsQemuImg(t, dir, ['check', ...args])
})
