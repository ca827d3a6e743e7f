import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../../support/cli.ts'
import { makeRaw, noise } from '../../support/disks.ts'

const MIB = 2 ** 20

t.test('a backup with --verify and --manifest, and verify --manifest', async (t) => {
  const cwd = t.testdir()
  makeRaw(join(cwd, 'disk.raw'), 8 * MIB, [{ at: MIB, bytes: noise(2 * MIB) }])
  const full = await runCli(['full', '--verify', '--manifest', 'disk.raw', 'b.qcow2'], { cwd })
  t.equal(full.status, 0, full.stderr)
  t.match(
    full.stdout,
    /^ {2}verified: the image is sound and holds what was read\n {2}blake2b-256 of 4 MiB blocks: \w{64}\n {2}manifest b\.qcow2\.manifest\.json$/m,
  )

  const same = await runCli(['verify', '--manifest', 'b.qcow2'], { cwd })
  t.equal(same.status, 0, same.stderr)
  t.match(same.stdout, /^b\.qcow2: sound, and as it was read on \d{4}-\d\d-\d\dT/)
  t.equal(same.stderr, '')

  const json = await runCli(['verify', '--manifest', '--json', 'b.qcow2'], { cwd })
  const [{ image, same: yes, manifest }] = JSON.parse(json.stdout)
  t.strictSame([image, yes, manifest.image], ['b.qcow2', true, 'b.qcow2'])

  const bytes = readFileSync(join(cwd, 'b.qcow2'))
  bytes[MIB] ^= 1
  writeFileSync(join(cwd, 'b.qcow2'), bytes)
  const different = await runCli(['verify', '--manifest', 'b.qcow2'], { cwd })
  t.equal(different.status, 1)
  t.match(different.stdout, /^b\.qcow2: does not match the data that was read: /)
  t.equal(different.stderr, 'qcow2-backup: verify: 1 of 1 images are not good\n')
})

t.test('progress of verifying has its phase', async (t) => {
  const cwd = t.testdir()
  makeRaw(join(cwd, 'disk.raw'), MIB, [{ at: 0, bytes: noise(MIB) }])
  const args = ['full', '--verify', '--manifest', '--progress', 'json', 'disk.raw', 'b.qcow2']
  const { stderr } = await runCli(args, { cwd })
  const lines = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.equal(lines[0].phase, 'copy')
  t.match(lines.at(-1), { phase: 'verify', position: MIB, size: MIB })
  const verify = await runCli(['verify', '--manifest', '--progress', 'json', 'b.qcow2'], { cwd })
  t.match(JSON.parse(verify.stderr.trim().split('\n').at(-1)!), { phase: 'verify', position: MIB })
})

t.test('one result per image, whatever is wrong with another; status 1 at the end', async (t) => {
  const cwd = t.testdir({ 'no-image': 'nothing' })
  makeRaw(join(cwd, 'disk.raw'), MIB, [{ at: 0, bytes: noise(MIB) }])
  for (const args of [['--manifest', 'with.qcow2'], ['without.qcow2']]) {
    const { status, stderr } = await runCli(['full', 'disk.raw', ...args], { cwd })
    t.equal(status, 0, stderr)
  }
  const sound = await runCli(['verify', 'without.qcow2', 'with.qcow2'], { cwd })
  t.equal(sound.status, 0, sound.stderr)
  const [without, held] = sound.stdout.trimEnd().split('\n')
  t.match(without, /^without\.qcow2: has no manifest/)
  t.match(held, /^with\.qcow2: sound, and as it was read on /)

  const names = ['missing', 'no-image', 'without.qcow2', 'with.qcow2']
  const mixed = await runCli(['verify', '--json', ...names], { cwd })
  t.equal(mixed.status, 1)
  t.equal(mixed.stderr, 'qcow2-backup: verify: 2 of 4 images are not good\n')
  t.match(
    JSON.parse(mixed.stdout),
    names.map((image, i) => ({ image, same: i > 1 })),
  )
  const demanded = await runCli(['verify', '--manifest', 'without.qcow2'], { cwd })
  t.equal(demanded.status, 1)
})

t.test('verify refuses the options of parity', async (t) => {
  for (const options of [
    ['--against', 'x'],
    ['-f', 'raw'],
    ['--allow-path', '/'],
  ]) {
    const { status, stderr } = await runCli(['verify', ...options, 'x'])
    t.equal(status, 2)
    t.match(stderr, /: unknown option\n$/)
  }
  const device = await runCli(['full', '--manifest', '/dev/null', '/dev/null'])
  t.not(device.status, 0)
})

t.test('verify --repo: one line per image, status 1 if one is bad', async (t) => {
  const cwd = t.testdir()
  makeRaw(join(cwd, 'disk.raw'), MIB, [{ at: 0, bytes: noise(MIB) }])
  for (const point of ['p0', 'p1']) {
    const args = ['disk:vda=disk.raw', '--name', 'web', '--repo', 'r', '--checkpoint', point]
    t.equal((await runCli(['backup', ...args, '--full'], { cwd })).status, 0)
  }
  const good = await runCli(['verify', '--repo', 'r', '--progress', 'json'], { cwd })
  t.equal(good.status, 0, good.stderr)
  t.equal(
    good.stdout,
    'r/web/vda.p0.qcow2: sound, and as recorded\nr/web/vda.p1.qcow2: sound, and as recorded\n',
  )
  const last = JSON.parse(good.stderr.trim().split('\n').at(-1)!)
  t.equal(last.phase, 'verify')
  t.equal(last.position, last.size)

  writeFileSync(join(cwd, 'r/web/p0.json'), '{')
  writeFileSync(join(cwd, 'r/web/.x.0123456789ab.partial'), '')
  const bad = await runCli(['verify', '--repo', 'r', 'web', '--sample', '0.1%'], { cwd })
  t.equal(bad.status, 1)
  t.match(bad.stdout, /^r\/web\/p0\.json: is not JSON\nr\/web\/\.x\..*\.partial: is of a run.*\n/)
  t.equal(bad.stderr, 'qcow2-backup: verify: 1 of 3 are not good\n')
  const json = await runCli(['verify', '--repo', 'r', 'web@p1', '--json', '--sample=50'], { cwd })
  t.equal((await runCli(['verify', '--repo', 'r', 'web@'], { cwd })).stdout, bad.stdout)
  t.equal(json.status, 0)
  t.match(JSON.parse(json.stdout), [
    { kind: 'image', machine: 'web', point: 'p1', disk: 'vda', same: true, read: true },
  ])
})

t.test('wrong usage of verify', async (t) => {
  for (const [args, line] of [
    [[], 'IMAGE: missing'],
    [['a', '--sample', '5'], '--sample: needs a repository, --repo'],
    [['--repo', 'r', '--sample', 'x'], "--sample: 'x' is not a percentage; write 5% or 0.5%"],
    [['--repo', 'r', '--sample', '0'], '--sample: 0 is not a percentage above 0, up to 100'],
    [['--repo', 'r', '--manifest'], '--manifest: is not for what a repository has'],
  ] as const) {
    const { status, stderr } = await runCli(['verify', ...args], { cwd: t.testdir() })
    t.strictSame([status, stderr], [2, `qcow2-backup: ${line}\n`])
  }
})
