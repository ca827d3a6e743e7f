/** `backup`, `list`, `machine` and `restore --repo` on the command line. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CLI, runCli } from '../../support/cli.ts'
import { inMountNamespace } from '../../support/namespace.ts'
import { qemuImg } from '../../support/qemu.ts'
import { RestingMachine } from '../../support/repository.ts'

t.setTimeout(900_000)

t.test('backup, list and restore print what they did', async (t) => {
  const m = new RestingMachine(t)
  m.write(1)
  const contents = m.contents()
  const first = await runCli([...m.args, '--checkpoint', 'p0', '--progress', 'json'])
  t.equal(first.status, 0, first.stderr)
  t.match(
    first.stdout,
    /p0\.json: complete, .* s\n {2}vda: full \(it is the first backup of this disk\)\n/,
  )
  const [line] = first.stderr.split('\n')
  t.match(JSON.parse(line), {
    phase: 'copy',
    position: 0,
    size: 17 * 2 ** 20,
    disks: [{ name: 'vda' }, {}],
  })
  const second = await runCli([...m.args, '--no-checkpoint', '--checkpoint', 'p1', '--json'])
  t.match(JSON.parse(second.stdout), { machine: 'web', point: 'p1', parent: 'p0', notes: [] })
  t.strictSame(m.bitmaps(), ['p0'], 'no bitmap began at p1')
  const listed = await runCli(['list', '--repo', m.repository])
  t.match(
    listed.stdout,
    /^web: 2 points, .*\n {2}POINT .*\n {2}p0 .* full .* 1 {2}- .*\n {2}p1 .* mixed .* 2 {2}p0 .* never\n$/,
  )
  const json = await runCli(['list', '--repo', m.repository, 'web', '--json'])
  const [p0, p1] = m.records()
  t.strictSame(JSON.parse(json.stdout), [
    { ...p0, depth: 1 },
    { ...p1, depth: 2 },
  ])
  const out = join(m.directory, 'out')
  const restore = ['restore', '--repo', m.repository]
  t.equal((await runCli([...restore, 'web', out])).status, 0)
  t.strictSame(readdirSync(out).sort(), ['vda.raw', 'vdb.raw'])
  t.ok(readFileSync(join(out, 'vda.raw')).equals(contents[0]))
  const one = await runCli([...restore, 'web@p0', '--disk', 'vdb', join(out, 'one'), '--json'])
  t.match(JSON.parse(one.stdout), { machine: 'web', point: 'p0', disks: [{ name: 'vdb' }] })
  t.ok(readFileSync(join(out, 'one')).equals(contents[1]))
  for (const [what, target, why] of [
    ['web@px', 'x', /web@px: there is no such point/],
    ['db', 'x', /db: .* has no such machine; it has 'web'/],
    ['web', out, /exists/],
  ] as const) {
    const { status, stderr } = await runCli([...restore, what, target], { cwd: m.directory })
    t.not(status, 0)
    t.match(stderr, why)
    t.notOk(existsSync(join(m.directory, 'x')))
  }
})

t.test('machine shows what is possible and what was left, machine abort removes it', async (t) => {
  const m = new RestingMachine(t)
  qemuImg('bitmap', '--add', m.qcow2, 'theirs')
  qemuImg('bitmap', '--add', m.qcow2, 'p0')
  qemuImg('bitmap', '--add', '--disable', m.qcow2, 'qcow2-backup-0123456789ab-p0')
  const named = [m.machine, '--name', 'web']
  const { stdout } = await runCli(['machine', ...named])
  t.match(
    stdout,
    /^web\n {2}vda: qcow2, 16 MiB, .*\n {4}full backup: possible; incremental ones after it: possible\n/,
  )
  t.match(stdout, /left by a run that was killed: bitmap p0 of disk vda \(run 0123456789ab\)/)
  const json = await runCli(['machine', ...named, '--json'])
  t.match(JSON.parse(json.stdout), {
    name: 'web',
    disks: [{ name: 'vda' }, {}],
    leftovers: [{ name: 'p0' }],
  })
  const aborted = await runCli(['machine', 'abort', ...named])
  t.equal(aborted.stdout, 'removed bitmap p0 of disk vda (run 0123456789ab)\n')
  t.strictSame(m.bitmaps(), ['theirs'])
})

t.test('wrong usage', async (t) => {
  const m = new RestingMachine(t)
  const cases: [string[], RegExp][] = [
    [['backup', m.machine, '--name', 'web'], /^qcow2-backup: --repo: missing/],
    [['backup', m.machine, '--repo', m.repository], /^qcow2-backup: --name: missing/],
    [[...m.args, '--full', '--incremental'], /^qcow2-backup: --incremental: cannot be combined/],
    [[...m.args, '--disk', 'x'], /^qcow2-backup: --disk: .* has no disk 'x'; it has 'vda', 'vdb'/],
    [[...m.args, '--checkpoint', 'a/b'], /^qcow2-backup: --checkpoint: 'a\/b' cannot be/],
    [[...m.args, '--quiesce'], /^qcow2-backup: --quiesce: is for running machines/],
    [[...m.args, '--discard'], /^qcow2-backup: --discard: is for running machines/],
    [['backup', 'vm:x', '--repo', 'r'], /^qcow2-backup: vm:x: is no machine/],
    [['restore', 'x', 'y', '--disk', 'z'], /^qcow2-backup: --disk: needs a repository/],
    [['list'], /^qcow2-backup: --repo: missing/],
  ]
  for (const [args, why] of cases) {
    const { status, stderr } = await runCli(args, { cwd: m.directory })
    t.equal(status, 2, stderr)
    t.match(stderr, why)
  }
  t.strictSame(m.bitmaps(), [])
})

t.test('a file system that is full ends a run without a trace', async (t) => {
  const m = new RestingMachine(t)
  for (let i = 0; i < 12; i++) m.write(i)
  const script = `
    mkdir "$1"; mount -t tmpfs -o size=600K none "$1"
    status=0; "$2" "$3" backup "$4" --name web --repo "$1/repo" || status=$?
    ls -A "$1/repo/web"; exit $status`
  const small = join(m.directory, 'small')
  const { status, stdout, stderr } = inMountNamespace(
    script,
    small,
    process.execPath,
    CLI,
    m.machine,
  )
  t.equal(status, 1, stderr)
  t.match(stderr, /no space left on device/)
  t.equal(stdout, '.lock\n')
  t.strictSame(m.bitmaps(), [])
})
