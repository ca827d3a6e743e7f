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
  t.match(different.stdout, /^b\.qcow2: does not hold what was read: /)
  t.equal(different.stderr, 'qcow2-backup: verify: 1 of 1 images differ\n')
})

t.test('progress has a phase', async (t) => {
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

t.test('options that do not go together', async (t) => {
  for (const options of [
    ['--against', 'x'],
    ['-f', 'raw'],
    ['--allow-path', '/'],
  ]) {
    const { status, stderr } = await runCli(['verify', '--manifest', ...options, 'x'])
    t.equal(status, 2)
    t.match(stderr, /^qcow2-backup: --manifest: only goes with /)
  }
  const device = await runCli(['full', '--manifest', '/dev/null', '/dev/null'])
  t.not(device.status, 0)
})
