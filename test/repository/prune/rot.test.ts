/**
 * Images that are joined are compared with their recorded hashes on the way: whatever has rotted is found before
 * anything is replaced, in whichever of them, and whether or not the new image would have it.
 */
import {
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { ImageOptions, MachinePrune } from '../../../lib/index.ts'
import { CLI, spawnCli } from '../../support/cli.ts'
import { noise, prose } from '../../support/disks.ts'
import { effort } from '../../support/effort.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { run } from '../../support/qemu.ts'
import { seeded } from '../../support/random.ts'

t.setTimeout(600_000)

const CLUSTER = 4096
/** More than one block of the hash. */
const SIZE = 4.5 * 2 ** 20 + 512

/** Keeps the newest point, of which the others become part. */
const POLICY = { keepLast: 1 }

interface History {
  m: PrunedMachine
  /** Puts the repository there as it was. */
  restart(): void
}

/**
 * A full backup and incremental ones over it: each writes clusters of its own, some of an older one, and zeroes. The
 * first cluster that an image has is `at` times its number, so that it is hidden if that is 0.
 */
async function history(t: Test, at: number, options: ImageOptions, points = 4): Promise<History> {
  const m = new PrunedMachine(t, ['vda'], seeded(5))
  m.resize('vda', SIZE)
  for (let i = 0; i < points; i++) {
    m.write('vda', i * at * CLUSTER, prose(2 * CLUSTER, i))
    m.write('vda', (20 + 3 * i) * CLUSTER, noise(4 * CLUSTER, i))
    m.write('vda', (60 + 2 * i) * CLUSTER, Buffer.alloc(3 * CLUSTER))
    m.write('vda', 4 * 2 ** 20 - 65536 + i * 65536, noise(2 * 65536, i + 10))
    m.write('vda', SIZE - 512, noise(512, i))
    await m.backup({ clusterSize: CLUSTER, ...options, hours: 1 })
  }
  const saved = `${m.repository}.saved`
  cpSync(m.repository, saved, { recursive: true, preserveTimestamps: true })
  return {
    m,
    restart() {
      rmSync(m.repository, { recursive: true, force: true })
      cpSync(saved, m.repository, { recursive: true, preserveTimestamps: true })
    },
  }
}

/** Inverts a byte of the first cluster of an image's data, and keeps its times, as storage does that rots. */
function rot(path: string): void {
  const { atime, mtime } = statSync(path)
  const bytes = readFileSync(path)
  const at = bytes.findIndex((byte, i) => byte !== 0 && i >= CLUSTER)
  bytes[at + 1] ^= 0xff
  writeFileSync(path, bytes)
  utimesSync(path, atime, mtime)
}

function snapshot(m: PrunedMachine): Record<string, string> {
  const names = readdirSync(m.folder).filter((name) => name !== '.lock')
  return Object.fromEntries(
    names.map((name) => [name, readFileSync(join(m.folder, name), 'latin1')]),
  )
}

const COMPRESSION: ImageOptions[] = effort<ImageOptions[]>(
  [{}, { compress: 'zlib' }],
  [{}, { compress: 'zlib' }, { compress: 'zstd' }],
)

t.test('a cluster that has rotted is found, wherever it is', async (t) => {
  for (const options of COMPRESSION) {
    for (const at of options.compress ? effort([3], [0, 3]) : [0, 3]) {
      const { m, restart } = await history(t, at, options)
      for (const point of effort(['p0', 'p2', 'p3'], m.points())) {
        restart()
        rot(join(m.folder, `vda.${point}.qcow2`))
        const before = snapshot(m)
        const phases = new Set<string>()
        const { failure, removed } = await m.prune({
          ...POLICY,
          onProgress: ({ phase }) => phases.add(phase),
        })
        const what = `${options.compress ?? 'plain'}, ${at ? 'shown' : 'hidden'}, in ${point}`
        t.match(failure?.code, options.compress ? /DIFFERENT|BAD_IMAGE/ : 'DIFFERENT', what)
        t.match(failure?.message, `vda.${point}.qcow2: `, what)
        if (!options.compress) t.match(failure?.message, /holds other content than recorded/, what)
        t.strictSame(removed, [], what)
        t.strictSame(snapshot(m), before, `${what}: nothing is changed`)
        t.notOk(phases.has('verify'), `${what}: read once`)
      }
      restart()
      t.equal((await m.prune(POLICY)).failure, undefined)
      t.strictSame(m.points(), ['p3'])
      t.strictSame(await m.differences(['p3']), [])
      t.strictSame(m.strangers(), [])
    }
  }
})

t.test('of many images in a row some are read before', async (t) => {
  const { m, restart } = await history(t, 1, {}, 7)
  for (const point of effort(['p0', 'p1'], m.points())) {
    restart()
    rot(join(m.folder, `vda.${point}.qcow2`))
    const { failure } = await m.prune(POLICY)
    t.match(failure?.message, new RegExp(`vda\\.${point}\\.qcow2: holds other content`))
  }
  restart()
  t.equal((await m.prune(POLICY)).failure, undefined)
  t.strictSame(await m.differences(['p6']), [])
})

t.test('over an image that stays, which need not be sound', async (t) => {
  const { m } = await history(t, 3, {})
  rot(join(m.folder, 'vda.p0.qcow2'))
  // The oldest is kept as long as there are fewer days.
  const { failure, removed } = await m.prune({ keepDaily: 2 })
  t.equal(failure, undefined)
  t.strictSame(removed, ['p2', 'p1'])
})

t.test('space that runs out while images are joined', async (t) => {
  const { m } = await history(t, 3, {})
  const before = snapshot(m)
  const args = ['prune', '--repo', m.repository, '--keep-last', '1']
  const limited = 'ulimit -f 300; exec "$@"'
  const { status, stderr } = run('bash', ['-c', limited, 'bash', process.execPath, CLI, ...args])
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: prune: .*vda\.p3\.qcow2: .*file too large.*\n$/)
  t.strictSame(snapshot(m), before)
})

t.test('killed while images are joined: nothing is lost, and the next run does it', async (t) => {
  const { m } = await history(t, 3, {})
  const before = snapshot(m)
  const points = m.points()
  // A long time for these images.
  const args = ['prune', '--repo', m.repository, '--keep-last', '1', '--rate-limit', '64K']
  let sawCopy = false
  const { signal } = await spawnCli([...args, '--progress', 'json'], {
    onStderr(text, child) {
      sawCopy ||= text.includes('"copy"')
      if (sawCopy) child.kill('SIGKILL')
    },
  })
  t.equal(signal, 'SIGKILL')
  t.strictSame(snapshot(m), before)
  t.strictSame(await m.differences(points), [])
  const result: MachinePrune = await m.prune(POLICY)
  t.equal(result.failure, undefined)
  t.strictSame(await m.differences(['p3']), [])
  t.strictSame(m.strangers(), [])
})
