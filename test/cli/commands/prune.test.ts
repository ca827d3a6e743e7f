/** `prune` on the command line, also killed. */
import { cpSync, existsSync, rmSync } from 'node:fs'
import t from 'tap'
import { CLI, runCli } from '../../support/cli.ts'
import { effort } from '../../support/effort.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { run } from '../../support/qemu.ts'
import { seeded } from '../../support/random.ts'

t.setTimeout(900_000)

const m = new PrunedMachine(t, ['vda'], seeded(4))
const args = ['prune', '--repo', m.repository, '--keep-daily', '2']
const saved = `${m.repository}.saved`

/** p0 and p3 stay. */
t.before(async () => {
  for (let i = 0; i < 4; i++) {
    m.change()
    await m.backup({ hours: 1 })
  }
  cpSync(m.repository, saved, { recursive: true, preserveTimestamps: true })
})

function restart(): void {
  rmSync(m.repository, { recursive: true })
  cpSync(saved, m.repository, { recursive: true, preserveTimestamps: true })
}

t.test('prune says why each point stays or goes, and what that takes', async (t) => {
  const plan = [
    /^web: 2 of 4 points are kept$/,
    /^ {2}keep {4}p0 {2}oldest daily 2026-01-01$/,
    /^ {2}remove {2}p1 {2}no rule keeps it$/,
    /^ {2}remove {2}p2 {2}no rule keeps it$/,
    /^ {2}keep {4}p3 {2}newest: the next backup builds on it, daily 2026-01-01$/,
    /^ {2}make again {2}vda\.p3\.qcow2 with p2, p1; over p0, at most [\d.]+ .iB$/,
    /^ {2}needs at most [\d.]+ .iB meanwhile$/,
  ]
  const dry = await runCli([...args, '--dry-run'])
  t.match(dry, { status: 0, stderr: '' })
  const freed = /^web: 2 points would be removed, at most [\d.]+ .iB freed$/
  t.match(dry.stdout.split('\n'), [...plan, freed, ''])
  t.strictSame(m.points(), ['p0', 'p1', 'p2', 'p3'])

  const json = await runCli([...args, 'web', '--json', '--progress', 'json'])
  t.equal(json.status, 0)
  t.match(JSON.parse(json.stderr.split('\n')[0]), { phase: 'copy' })
  t.match(JSON.parse(json.stdout), [
    {
      machine: 'web',
      points: [{ point: 'p0', keep: true }, { keep: false }, { keep: false }, { keep: true }],
      joined: [{ point: 'p3', disk: 'vda', with: ['p2', 'p1'], parent: 'p0' }],
      removed: ['p2', 'p1'],
    },
  ])
  t.strictSame(await m.differences(['p0', 'p3']), [])
  t.strictSame(m.strangers(), [])
  restart()
})

t.test('wrong usage', async (t) => {
  const repo = ['prune', '--repo', m.repository]
  const cases: [string[], RegExp][] = [
    [['prune', '--keep-last', '1'], /^qcow2-backup: --repo: missing/],
    [repo, /^qcow2-backup: --keep-last: missing: no rule/],
    [[...repo, '--keep-last', '0'], /^qcow2-backup: --keep-last: missing: no rule/],
    [[...repo, '--keep-daily', '-1'], /^qcow2-backup: --keep-daily: '-1' is not a whole number/],
    [[...args, 'web', 'db'], /^qcow2-backup: db: .* has no such machine; it has 'web'\n$/],
  ]
  for (const [given, why] of cases) {
    const { status, stderr, stdout } = await runCli(given)
    t.match({ status, stderr, stdout }, { status: 2, stderr: why, stdout: '' })
  }
  t.strictSame(m.points(), ['p0', 'p1', 'p2', 'p3'])
})

t.test('a machine that fails ends it with 1, after the others', async (t) => {
  rmSync(`${m.folder}/vda.p2.qcow2`)
  const { status, stdout, stderr } = await runCli(args)
  t.equal(status, 1)
  t.match(
    stdout,
    /^web: 2 of 4 points are kept\n(.*\n)*web: failed: .*vda\.p2\.qcow2: no such file or directory\n$/,
  )
  t.match(stderr, /^qcow2-backup: prune: .*vda\.p2\.qcow2: no such file or directory\n$/)
  restart()
})

/** Calls by which names and durability change. */
const CALLS = 'fsync,fdatasync,linkat,unlink,rename,renameat2'

t.test(`killed at calls of ${CALLS}`, async (t) => {
  const kill = (n: number) => {
    return run('strace', [
      ...['-f', '-qq', '-o', '/dev/null', '-e', `trace=${CALLS}`],
      ...['-e', `inject=${CALLS}:signal=KILL:when=${n}`],
      // One thread makes all calls of Node's: they are counted for each thread by itself.
      ...['env', 'UV_THREADPOOL_SIZE=1', 'QCOW2_BACKUP_ENGINE=threads'],
      ...[process.execPath, CLI, ...args],
    ])
  }
  // A quick run is killed once, about in the middle at most.
  const step = effort(1000, 1)
  const ends = new Set<string>()
  for (let n = effort(1 + (Date.now() % 20), 1); ; n += step) {
    restart()
    const { status } = kill(n)
    if (status === 0) break
    ends.add(existsSync(`${m.folder}/.prune.json`) ? 'decided' : `${m.points()}`)
    t.strictSame(await m.differences(['p0', 'p3']), [], `killed at ${n}`)
    t.equal((await m.prune({ keepDaily: 2 })).failure, undefined)
    t.strictSame(m.points(), ['p0', 'p3'], `killed at ${n}, then a prune`)
    t.strictSame(m.strangers(), [], `killed at ${n}, then a prune`)
    t.strictSame(await m.differences(['p0', 'p3']), [], `killed at ${n}, then a prune`)
  }
  t.comment([...ends])
})
