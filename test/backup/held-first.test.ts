/** What QEMU's fleecing image holds is copied first, while the guest goes on writing. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type CopyRequest, openSession } from '../../lib/backup/session.ts'
import { fullBackup } from '../../lib/index.ts'
import { randomChanges } from '../support/changes.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { THOROUGH } from '../support/effort.ts'
import { freezeDisk } from '../support/frozen-disk.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, run } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(300_000)

const MIB = 2 ** 20
const SIZE = 192 * MIB
const GRANULE = 65536
/** QEMU before 8.0 is right about single clusters only. */
const isOld = /version [67]\./.test(run('qemu-storage-daemon', ['--version']).stdout)
const ASKING = isOld ? { requestSize: GRANULE } : {}

const models = t.testdir()

/** Such a disk, made once. */
function model(zeroes: number): string {
  const path = join(models, `${zeroes}`)
  if (!existsSync(path)) {
    const raw = makeRaw(`${path}.raw`, SIZE, [{ at: 0, bytes: noise(SIZE - zeroes) }])
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, path)
    rmSync(raw)
  }
  return path
}

/** A qcow2 disk, full but for its last part, and a directory for targets. */
function makeDisk(t: Test, zeroes = 16 * MIB): { disk: string; target: string } {
  const disk = join(t.testdir(), 'disk.qcow2')
  const directory = dirname(disk)
  copyFileSync(model(zeroes), disk)
  mkdirSync(join(directory, 'targets'))
  return { disk, target: join(directory, 'targets', 'backup.qcow2') }
}

type Request = Pick<CopyRequest, 'held' | 'options' | 'previous'>

/** One backup, with what it says of itself. */
async function backUp(from: string, to: string, { options, ...request }: Request) {
  const session = await openSession({
    ...{ from, to, format: 'qcow2', replaces: 'image', ...request },
    options: { discardAfterCopy: GRANULE, ...ASKING, ...options },
  })
  try {
    await session.copy()
    return { ...(await session.publish()), takenFirst: session.takenFirst }
  } finally {
    await session.discard()
  }
}

const same = (target: string, expected: string) =>
  qemuImgSame({ path: target, format: 'qcow2' }, { path: expected, format: 'raw' })

t.test('the fleecing image shrinks before the copy gets there', async (t) => {
  const { disk, target } = makeDisk(t)
  const { uri, expected, write, held, scratchBytes } = await freezeDisk(t, disk, SIZE)
  write('write -P 1 120M 40M')
  t.ok(scratchBytes() >= 40 * MIB)
  const peaks: number[] = []
  let position = 0
  const result = await backUp(uri, target, {
    // Nothing more is handed out to the copy while this is asked.
    async held() {
      // First for the plan, then for the first round, whose discards are under way when it is asked again.
      const round = peaks.length - 1
      while (round > 0 && scratchBytes() > MIB) await pause(5)
      if (round === 1) {
        t.ok(position < 100 * MIB, 'before the copy got there')
        write(`write -P 2 ${170 - 10 * round}M 8M`)
      }
      peaks.push(scratchBytes())
      return await held()
    },
    options: {
      rateLimit: 48 * MIB,
      onProgress: (progress) => {
        position = progress.position
      },
    },
  })
  t.ok(peaks.length > 2)
  t.ok(Math.max(...peaks.slice(2)) < 10 * MIB, `what is written later, alone: ${peaks}`)
  t.ok(result.takenFirst.bytes >= 40 * MIB)
  t.equal(scratchBytes(), 0, 'nothing is left')
  t.notOk(result.notes)
  const { status, report } = qemuImgCheck(target)
  t.equal(status, 0)
  t.notOk(report['fragmented-clusters'], 'in guest order')
  t.ok(same(target, expected))
  t.strictSame(readdirSync(join(t.testdirName, 'targets')), ['backup.qcow2'])
})

t.test('what is clean in the bitmap is discarded before anything is read', async (t) => {
  const { disk, target } = makeDisk(t)
  const full = join(t.testdirName, 'full.qcow2')
  await fullBackup(disk, full)
  const since = ['write -P 5 20M 16M', 'write -z 50M 4M']
  const { uri, expected, write, held, scratchBytes } = await freezeDisk(t, disk, SIZE, since)
  let questions = 0
  const result = await backUp(uri, target, {
    async held() {
      // First for the plan, then for the first round.
      if (++questions === 2) {
        write('write -P 6 60M 64M', 'write -P 6 50M 4M', 'write -P 6 24M 8M')
        t.equal(scratchBytes(), 8 * MIB, 'only what is to be read is kept')
      }
      return await held()
    },
    previous: full,
    options: { bitmap: 'since' },
  })
  t.ok(questions >= 2)
  t.match(result, { dataBytes: 16 * MIB, zeroBytes: 4 * MIB })
  t.match(result.takenFirst, { bytes: 8 * MIB, rounds: 1 })
  t.equal(scratchBytes(), 0)
  t.equal(qemuImgCheck(target).status, 0)
  t.ok(same(target, expected))
})

for (const discardAfterCopy of THOROUGH ? [GRANULE, undefined] : [GRANULE]) {
  const how = discardAfterCopy ? 'with' : 'without'
  t.test(`what the guest zeroes meanwhile is read as it was, ${how} discards`, async (t) => {
    const { disk, target } = makeDisk(t)
    const { uri, expected, write, held } = await freezeDisk(t, disk, SIZE)
    // QEMU 7.2 says of them that they are zero in the point in time.
    write('write -z 10560k 8200k', 'write -z -u 100M 1M')
    let isTold = false
    const result = await backUp(uri, target, {
      async held() {
        if (isTold) return []
        isTold = true
        const ranges = await held()
        // Now in part of what is read at once, without being told.
        write('write -z 30400k 3m', 'write -z 40m 64k', 'write -z 50111k 10m')
        return ranges
      },
      options: { discardAfterCopy },
    })
    t.equal(result.takenFirst.bytes, 0)
    t.equal(result.dataBytes, SIZE - 16 * MIB)
    t.ok(same(target, expected))
  })
}

const WAYS: Record<string, Pick<Request, 'options'> & { incremental?: boolean }> = {
  full: { options: { verify: true } },
  'compressed, in small clusters': { options: { compress: 'zstd', clusterSize: 4096 } },
  'in large clusters, with large granules': {
    options: { clusterSize: 2 * MIB, discardAfterCopy: MIB },
  },
  incremental: { incremental: true, options: { bitmap: 'since' } },
  'threads, buffered': { options: { engine: 'threads', direct: 'off' } },
}

/** What a quick run meets of them. */
const QUICK = ['compressed, in small clusters', 'incremental']

for (const [index, [name, { incremental, options }]] of Object.entries(WAYS).entries()) {
  if (!THOROUGH && !QUICK.includes(name)) continue
  t.test(`a guest that writes all the time: ${name}`, async (t) => {
    const { disk, target } = makeDisk(t, (30 + 10 * index) * MIB)
    const full = join(t.testdirName, 'full.qcow2')
    if (incremental) await fullBackup(disk, full)
    const since = incremental ? randomChanges(SIZE, 60, 77) : undefined
    const frozen = await freezeDisk(t, disk, SIZE, since)
    const { uri, expected, held } = frozen
    frozen.write(...randomChanges(SIZE, 20, index))
    const guest = frozen.keepWriting(randomChanges(SIZE, 3000, 100 + index))
    const result = await backUp(uri, target, {
      held,
      ...(incremental && { previous: full }),
      options: { rateLimit: 64 * MIB, ...options },
    })
    t.equal(guest.exitCode, null, 'it still writes')
    t.ok(result.takenFirst.bytes > 0)
    t.equal(qemuImgCheck(target).status, 0)
    t.ok(same(target, expected))
  })
}

t.test('a server that dies meanwhile fails the backup, and nothing is left', async (t) => {
  const { disk, target } = makeDisk(t)
  const { uri, write, held, daemon } = await freezeDisk(t, disk, SIZE)
  write('write -P 1 100M 64M')
  const dying = backUp(uri, target, {
    async held() {
      await daemon.stop('SIGKILL')
      return await held()
    },
    options: { timeoutMs: 1000 },
  })
  await t.rejects(dying, { code: 'IO' })
  t.strictSame(readdirSync(join(t.testdirName, 'targets')), [])
})

t.test('nobody knows what is held: the backup is complete, and says so', async (t) => {
  const { disk, target } = makeDisk(t)
  const { uri, expected, write } = await freezeDisk(t, disk, SIZE)
  write('write -P 1 100M 64M')
  write('write -z 20m 8m')
  const held = () => Promise.reject(new Error('no such file'))
  const result = await backUp(uri, target, { held, options: {} })
  t.match(result.notes, [/^what the point in time holds was not all copied first: .*no such file$/])
  t.ok(existsSync(target))
  t.ok(same(target, expected))
})
