import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg } from '../../support/qemu.ts'
import { recordsOf, writeRecords } from '../../support/recorded.ts'

t.test('report makes a page of an image, and says what calls for action', async (t) => {
  const cwd = t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk'), '64M')
  const made = await runCli(['report', 'disk', '-o', 'page.html'], { cwd })
  t.strictSame(made, {
    ...{ status: 0, signal: null, stderr: '' },
    stdout: 'page.html: 1 image, disk 64 MiB, 0 B data\n',
  })
  const again = await runCli(['report', 'disk', '-o', 'page.html'], { cwd })
  t.match(again, { status: 1, stderr: 'qcow2-backup: page.html: exists; --force replaces it\n' })
  const json = await runCli(['report', 'disk', '-o', 'page.html', '--force', '--json'], { cwd })
  t.match(JSON.parse(json.stdout), {
    target: 'page.html',
    report: { image: 'disk', virtualSize: 64 * 2 ** 20, images: [{ format: 'qcow2' }] },
  })
})

t.test('report makes a page of a repository', async (t) => {
  const cwd = t.testdir()
  const first = Date.now() - 10 * 86_400_000
  writeRecords(join(cwd, 'repo'), recordsOf({ machine: 'web', points: 3, first, interval: 1000 }))
  const args = ['report', '--repo', 'repo', '-o', 'page.html', '--keep-daily', '7']
  const { status, stdout } = await runCli(args, { cwd })
  t.equal(status, 0)
  t.match(stdout, /^page\.html: 1 machine, 3 points, [\d.]+ GiB stored\n {2}warning: web: /)
  t.match(readFileSync(join(cwd, 'page.html'), 'utf8'), /7 daily/)
})

t.test('report wants one thing to report, a page, and what belongs to it', async (t) => {
  const cwd = t.testdir()
  const wrong: [string[], string][] = [
    [['disk'], '--output: missing'],
    [['-o', 'p'], '--repo: missing'],
    [['disk', '--repo', 'r', '-o', 'p'], '--repo: cannot be combined'],
    [['disk', '-o', 'p', '--keep-last', '1'], '--keep-last: is for a repository'],
    [['--repo', 'r', '-o', 'p', '-U'], '--force-share: is for an image'],
    [['disk', '-o', '-'], '--output: standard output'],
  ]
  for (const [args, message] of wrong) {
    const { status, stderr } = await runCli(['report', ...args], { cwd })
    t.equal(status, 2)
    t.match(stderr, `qcow2-backup: ${message}`)
  }
  t.notOk(existsSync(join(cwd, 'p')))
})
