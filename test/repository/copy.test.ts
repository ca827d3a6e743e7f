/** Copies of repositories: complete chains at any moment, whatever is damaged, taken, full or killed. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine, copyRepository, listRepository, verifyRepository } from '../../lib/index.ts'
import { native } from '../../lib/native.ts'
import { Repository } from '../../lib/repository/repository.ts'
import { CLI } from '../support/cli.ts'
import { effort } from '../support/effort.ts'
import { inMountNamespace } from '../support/namespace.ts'
import { run } from '../support/qemu.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(1_800_000)

/**
 * Machine `web` has p0, p1 over it and p2 over that, and `new`, a full one; `db` has q0. No test changes it.
 */
const m = new RestingMachine(t)
for (const [i, point] of ['p0', 'p1', 'p2', 'new'].entries()) {
  m.write(i)
  const full = point === 'new'
  await backupMachine(m.machine, m.repository, { name: 'web', checkpoint: point, full })
}
await backupMachine(`disk:vdb=${m.raw}`, m.repository, { name: 'db', checkpoint: 'q0' })
writeFileSync(join(m.folder, 'p1.xml'), '<domain/>')

const isOurs = (name: string) => !name.startsWith('.')

/** Points of the copy, each with all its files, which equal those of the source. */
function pointsOf(t: Test, repository: string, machine = 'web', source = m.repository): string[] {
  const [from, to] = [source, repository].map((path) => join(path, machine))
  if (!existsSync(to)) return []
  const points = readdirSync(to).flatMap((name) => /^([^.].*)\.json$/.exec(name)?.[1] ?? [])
  const files = readdirSync(from).filter((name) =>
    points.some((point) => name.startsWith(`${point}.`) || name.endsWith(`.${point}.qcow2`)),
  )
  t.strictSame(readdirSync(to).filter(isOurs).sort(), files.filter(isOurs).sort(), 'files')
  const differing = files.filter(
    (name) => !readFileSync(join(from, name)).equals(readFileSync(join(to, name))),
  )
  t.strictSame(differing, [], 'all as in the source')
  return points.sort()
}

/** Nothing is left, all is sound, and it is what the guest had. */
async function requireTidy(t: Test, repository: string, when: string): Promise<void> {
  const bad: unknown[] = []
  for await (const found of verifyRepository(repository)) {
    if (!found.same || found.kind !== 'image') bad.push(found)
  }
  t.strictSame(bad, [], when)
}

/** A copy of the source repository, to be damaged. */
function duplicate(test: Test): string {
  const path = join(test.testdirName, 'source')
  cpSync(m.repository, path, { recursive: true, preserveTimestamps: true })
  return path
}

t.test('what is missing is copied, byte for byte, and nothing else', async (t) => {
  const to = join(t.testdir(), 'to')
  const planned = await copyRepository(m.repository, to, { dryRun: true })
  t.match(planned.machines, [
    { machine: 'db', copied: [{ point: 'q0' }], present: 0 },
    { machine: 'web', copied: [{}, {}, {}, {}], present: 0 },
  ])
  t.notOk(existsSync(to), 'a dry run makes nothing')
  const phases = new Set<string>()
  let last: unknown
  const result = await copyRepository(m.repository, to, {
    machine: 'web',
    point: 'p1',
    onProgress: (progress) => {
      phases.add(progress.phase)
      last = progress
    },
  })
  t.match(result, {
    complete: true,
    machines: [{ machine: 'web', copied: [{ point: 'p0' }, { point: 'p1' }], failed: [] }],
  })
  const [{ copied }] = result.machines
  const size = copied.reduce((sum, { fileSize }) => sum + fileSize, 0)
  t.match(last, { phase: 'copy', position: size, size })
  t.strictSame(pointsOf(t, to), ['p0', 'p1'])
  t.equal(statSync(join(to, 'web', 'vda.p1.qcow2')).mode & 0o777, 0o600)
  const all = await copyRepository(m.repository, to)
  t.match(all.machines, [
    { machine: 'db', copied: [{ point: 'q0' }] },
    { machine: 'web', copied: [{ point: 'p2' }, { point: 'new' }], present: 2 },
  ])
  t.strictSame(pointsOf(t, to), ['new', 'p0', 'p1', 'p2'])
  t.strictSame(pointsOf(t, to, 'db'), ['q0'])
  const again = await copyRepository(m.repository, to, { onProgress: () => {} })
  t.match(again, { complete: true, machines: [{ copied: [], present: 1 }, { present: 4 }] })
  for (const { name, time } of timesOf(to)) {
    const { mtimeMs } = statSync(join(to, 'web', name), { bigint: true })
    t.equal(new Date(Number(mtimeMs)).toISOString(), time, 'counts as unmodified')
  }
  const listed = await listRepository(to, { machine: 'web' })
  t.ok(
    listed.every(({ verified }) => verified?.same),
    'what was read is remembered',
  )
  await requireTidy(t, to, 'in the end')
})

function timesOf(repository: string): { name: string; time: string }[] {
  return ['p0', 'p1', 'p2', 'new'].flatMap((point) => {
    const text = readFileSync(join(repository, 'web', `${point}.json`), 'utf8')
    const { disks } = JSON.parse(text) as { disks: { image: string; modified: string }[] }
    return disks.map(({ image, modified }) => ({ name: image, time: modified }))
  })
}

t.test('blocks are shared where they can be', async (t) => {
  const to = join(t.testdir(), 'to')
  const addon = native()
  const { cloneRanges } = addon
  t.teardown(() => {
    addon.cloneRanges = cloneRanges
  })
  let shared = 0
  addon.cloneRanges = async (from, into, ranges) => {
    t.strictSame([...ranges], [0, 0, 0], 'all of a file')
    writeFileSync(`/proc/self/fd/${into}`, readFileSync(`/proc/self/fd/${from}`))
    shared++
    return 1
  }
  await copyRepository(m.repository, to, { machine: 'db' })
  t.equal(shared, 1)
  t.strictSame(pointsOf(t, to, 'db'), ['q0'])
})

t.test('damage is not copied, and all that does not build on it is', async (t) => {
  t.testdir()
  const source = duplicate(t)
  const path = join(source, 'web', 'vda.p1.qcow2')
  const bytes = readFileSync(path)
  bytes[bytes.indexOf(Buffer.alloc(512, 2))] ^= 1
  writeFileSync(path, bytes)
  const to = join(t.testdirName, 'to')
  const result = await copyRepository(source, to)
  t.match(result, {
    complete: false,
    machines: [
      { machine: 'db', copied: [{ point: 'q0' }], failed: [] },
      {
        copied: [{ point: 'p0' }, { point: 'new' }],
        failed: [
          { point: 'p1', code: 'DIFFERENT', difference: /vda\.p1\.qcow2: does not match the data/ },
          {
            point: 'p2',
            difference: /^web@p2: the point 'p1', on which 'vda.p2.qcow2' builds, is/,
          },
        ],
      },
    ],
  })
  t.strictSame(pointsOf(t, to), ['new', 'p0'])
  await requireTidy(t, to, 'damaged')

  // A record that cannot be read, an image that is gone.
  cpSync(m.repository, source, { recursive: true, preserveTimestamps: true })
  writeFileSync(join(source, 'web', 'p1.json'), '{')
  rmSync(join(source, 'web', 'vdb.new.qcow2'))
  rmSync(to, { recursive: true })
  const broken = await copyRepository(source, to, { machine: 'web' })
  t.strictSame(broken.machines[0].failed.map(({ point, code }) => [point, code]).sort(), [
    ['new', 'IO'],
    ['p1', 'BAD_RECORD'],
    ['p2', 'BAD_IMAGE'],
  ])
  t.strictSame(pointsOf(t, to), ['p0'])
})

t.test(
  'another point of the same name, and a machine in use, leave out that machine',
  async (t) => {
    const to = join(t.testdir(), 'to')
    await backupMachine(`disk:vdb=${m.raw}`, to, { name: 'web', checkpoint: 'p1' })
    const before = readdirSync(join(to, 'web')).sort()
    const held = await (await Repository.open(to)).lock('web')
    const inUse = { code: 'IN_USE', difference: /another run writes/ }
    const during = await copyRepository(m.repository, to)
    t.match(during.machines, [
      { machine: 'db', failed: [] },
      { copied: [], failed: [inUse] },
    ])
    await held.close()
    const { machines } = await copyRepository(m.repository, to)
    const why = /^web: the target has other points of the same names: 'p1'; nothing/
    t.match(machines, [
      { machine: 'db', copied: [], present: 1 },
      { copied: [], failed: [{ code: 'TARGET_EXISTS', difference: why }] },
    ])
    t.strictSame(readdirSync(join(to, 'web')).sort(), before)
    const { machines: points } = await copyRepository(m.repository, to, {
      machine: 'web',
      point: 'new',
    })
    t.match(points, [{ copied: [{ point: 'new' }], failed: [] }])
  },
)

t.test('a file that has the name of an image stays', async (t) => {
  const to = join(t.testdir(), 'to')
  mkdirSync(join(to, 'web'), { recursive: true })
  writeFileSync(join(to, 'web', 'vdb.p1.qcow2'), 'mine')
  const { machines } = await copyRepository(m.repository, to, { machine: 'web' })
  t.match(machines, [{ copied: [{ point: 'p0' }], failed: [{ code: 'TARGET_EXISTS' }] }])
  t.equal(readFileSync(join(to, 'web', 'vdb.p1.qcow2'), 'utf8'), 'mine')
})

t.test('wrong arguments', async (t) => {
  const to = join(t.testdir(), 'to')
  const usage = { code: 'USAGE' }
  await t.rejects(copyRepository(m.repository, to, { machine: 'nope' }), usage)
  await t.rejects(copyRepository(m.repository, to, { machine: 'web', point: 'p9' }), usage)
  await t.rejects(copyRepository(m.repository, to, { point: 'p1' }), usage)
  const same = { code: 'BAD_TARGET', message: /is the repository that is copied/ }
  await t.rejects(copyRepository(m.repository, join(m.repository, 'web', '..')), same)
  await t.rejects(copyRepository(m.directory, to), { code: 'BAD_RECORD' })
  t.notOk(existsSync(to))
  const signal = AbortSignal.abort()
  await t.rejects(copyRepository(m.repository, to, { signal }), { code: 'ABORTED' })
})

t.test('a target that is full has only whole points', async (t) => {
  const to = join(t.testdir(), 'to')
  const script = `
    mkdir "$1"; mount -t tmpfs -o size=420K none "$1"
    status=0; "$2" "$3" copy "$4" "$1/repo" web --json || status=$?
    ls -A "$1/repo/web" >&2; exit $status`
  const result = inMountNamespace(script, to, process.execPath, CLI, m.repository)
  t.equal(result.status, 1, result.stderr)
  const { machines } = JSON.parse(result.stdout)
  t.match(machines, [{ failed: [{ code: 'IO', difference: /no space left on device/ }] }])
  const copied = machines[0].copied.map(({ point }: { point: string }) => point)
  t.ok(copied.length > 0 && copied.length < 4, `${copied.length} points`)
  const files = copied.flatMap((point: string) => [`${point}.json`, `vda.${point}.qcow2`])
  for (const file of files) t.match(result.stderr, file)
  t.notMatch(result.stderr, 'run.json')
  t.match(result.stderr, /^qcow2-backup: copy: 1 of 1 machine not complete\n/)
})

t.test('kill -9 at any call: whole points, and the next copy goes on', async (t) => {
  const calls = 'fsync,linkat,unlink,mkdir,rename,ftruncate,utimensat'
  let killed = 0
  for (let n = effort(21, 1); ; n += effort(34, 1)) {
    t.testdir()
    const to = join(t.testdirName, 'to')
    const { status } = run('strace', [
      ...['-f', '-qq', '-o', '/dev/null', '-e', `trace=${calls}`],
      ...['-e', `inject=${calls}:signal=KILL:when=${n}`],
      ...['env', 'UV_THREADPOOL_SIZE=1', 'QCOW2_BACKUP_ENGINE=threads'],
      ...[process.execPath, CLI, 'copy', m.repository, to, 'web'],
    ])
    if (status === 0) break
    killed++
    const left = existsSync(join(to, 'repository.json')) ? await listRepository(to) : []
    for (const { point, depth } of left)
      t.ok(depth, `call ${n}: ${point} has all that it builds on`)
    const result = await copyRepository(m.repository, to, { machine: 'web' })
    const [{ copied, present }] = result.machines
    t.strictSame([present, copied.length], [left.length, 4 - left.length], `call ${n}: goes on`)
    t.strictSame(pointsOf(t, to), ['new', 'p0', 'p1', 'p2'])
  }
  t.ok(killed > 1)
})
