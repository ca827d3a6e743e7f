/** `repository repair` on the command line. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { backupMachine } from '../../../lib/index.ts'
import { runCli } from '../../support/cli.ts'
import { makeRaw } from '../../support/disks.ts'

t.test('repair says what it does, what it would do, and what it cannot', async (t) => {
  const cwd = t.testdir()
  makeRaw(join(cwd, 'disk.raw'), 2 ** 20, [])
  const machine = `disk:vda=${join(cwd, 'disk.raw')}`
  for (const checkpoint of ['p0', 'p1']) {
    await backupMachine(machine, join(cwd, 'r'), { name: 'web', checkpoint })
  }
  const repair = (...args: string[]) =>
    runCli(['repository', 'repair', '--repo', 'r', ...args], { cwd })
  const nothing = await repair()
  t.match(nothing, { status: 0, stdout: 'r: there is nothing to put right\n', stderr: '' })

  rmSync(join(cwd, 'r/web/p0.json'))
  writeFileSync(join(cwd, 'r/web/p1.json'), '{')
  writeFileSync(join(cwd, 'r/web/.x.0123456789ab.partial'), '')
  writeFileSync(join(cwd, 'r/web/p9.xml'), '')
  const dry = await repair('web', '--dry-run')
  const lines = (done: boolean) => [
    `r/web/.x.0123456789ab.partial: ${done ? 'removed' : 'to be removed'}: was left by a run that was killed`,
    `r/web/p0.json: ${done ? 'made again' : 'to be made again'}: `,
    `r/web/p1.json: ${done ? 'set aside' : 'to be set aside'} as r/web/p1.json.broken: is not JSON`,
    `r/web/p1.json: ${done ? 'made again' : 'to be made again'}: `,
    'r/web/p9.xml: left as it is: is a definition, without the disks',
  ]
  const begin = (text: string, done: boolean) =>
    text
      .trimEnd()
      .split('\n')
      .map((line, i) => line.slice(0, lines(done)[i]?.length))
  t.strictSame(begin(dry.stdout, false), lines(false))
  t.strictSame([dry.status, dry.stderr], [1, 'qcow2-backup: repair: 1 of 5 cannot be put right\n'])
  const real = await repair()
  t.strictSame(begin(real.stdout, true), lines(true))
  t.equal(real.status, 1)
  rmSync(join(cwd, 'r/web/p9.xml'))
  const json = await repair('--json')
  t.strictSame([json.status, json.stdout], [0, '[]\n'])
  t.equal((await runCli(['verify', '--repo', 'r'], { cwd })).status, 0)
})

t.test('wrong usage of repository', async (t) => {
  for (const [args, line] of [
    [[], 'REPAIR: missing'],
    [['repair'], '--repo: missing; it names the directory of the backups'],
    [['mend', '--repo', 'r'], 'mend: is nothing to do with a repository; repair is'],
  ] as const) {
    const { status, stderr } = await runCli(['repository', ...args], { cwd: t.testdir() })
    t.strictSame([status, stderr], [2, `qcow2-backup: ${line}\n`])
  }
})
