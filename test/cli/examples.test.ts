import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import t, { type Test } from 'tap'
import { Flag } from '../../lib/cli/flags.ts'
import type { Io } from '../../lib/cli/io.ts'
import { buildProgram } from '../../lib/cli/program.ts'
import { run } from '../../lib/cli/run.ts'
import { namingOf } from '../../lib/cli/wording.ts'
import { backupMachine, createSnapshot, fullBackup } from '../../lib/index.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

/** Where a run in this process prints. */
function recorder() {
  const out: string[] = []
  const err: string[] = []
  const io: Io = {
    stdout: async (text) => void out.push(text),
    stderr: (text) => void err.push(text),
    canDraw: false,
    stdoutIsTerminal: false,
    writeBytes: async () => {},
    columns: 80,
    interruptible: (work) => work(new AbortController().signal),
  }
  return { io, out, err }
}

const { io } = recorder()
const COMMANDS = buildProgram(io, () => {}).commands.map((command) => command.name())

/** The commands of the shell that a help lists as examples. */
async function examplesOf(args: string[]): Promise<string[]> {
  const { io, out } = recorder()
  await run(() => [...args, '--help'], io)
  const [, list = ''] = out.join('').split('Examples:\n')
  return list.replaceAll('\\\n', ' ').split('\n').filter(Boolean)
}

/** The arguments that a shell passes on. Where the output goes is not the program's. */
function argumentsOf(example: string): string[] {
  const [command] = example.split(/ [|>] /)
  const { stdout } = spawnSync('bash', ['-fc', `printf '%s\\0' ${command}`], { encoding: 'utf8' })
  const [program, ...args] = stdout.split('\0').slice(0, -1)
  t.equal(program, 'qcow2-backup', example)
  return args
}

/** Files of the machines in the examples, and what there is here. */
const STAND_INS: [RegExp, string][] = [
  [/^\/dev\/.*/, 'disk.raw'],
  [/^\/srv\/base$/, '.'],
  [/^\/mnt\/.*/, 'offsite'],
]

/** Commands whose targets may be there from the preparations or the example before. */
const MAKERS = ['full', 'incremental', 'restore', 'snapshot', 'report']

/** Bitmaps of disk.qcow2 at the beginning, where a command's examples add others. */
const BITMAPS: Record<string, string[]> = { diff: [], bitmap: ['tuesday'] }

/** The images that a command's examples speak of. */
async function prepare(t: Test, command: string, examples: readonly string[]): Promise<void> {
  const named = (name: string) => examples.some((example) => example.includes(` ${name}.qcow2`))
  process.chdir(t.testdir())
  for (const name of ['disk.raw', 'sunday.raw']) {
    writeFileSync(name, 'data')
    truncateSync(name, 2 ** 31)
  }
  qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '2G')
  if (examples.some((example) => example.includes('before-update'))) {
    qemuIo('disk.qcow2', 'write -s disk.raw 0 4k')
    qemuImg('snapshot', '-c', 'before-update', 'disk.qcow2')
  }
  for (const name of BITMAPS[command] ?? ['sunday', 'monday', 'tuesday']) {
    qemuImg('bitmap', '--add', 'disk.qcow2', name)
  }
  qemuIo('disk.qcow2', 'write -P 7 1M 64k')
  for (const name of ['sunday', 'backup', 'full', 'monday', 'incremental-3']) {
    if (named(name)) await fullBackup('disk.raw', `${name}.qcow2`, { manifest: true })
  }
  qemuImg('create', '-q', '-f', 'qcow2', 'base.qcow2', '2G')
  qemuImg('bitmap', '--add', 'base.qcow2', 'monday')
  if (named('overlay')) await createSnapshot('disk.qcow2', 'overlay.qcow2')
  if (command === 'bitmap') qemuImg('bitmap', '--add', 'overlay.qcow2', 'monday')
  if (named('disk.snap3')) {
    await createSnapshot('disk.qcow2', 'disk.snap1.qcow2')
    await createSnapshot('disk.snap1.qcow2', 'disk.snap3.qcow2')
  }
  const ofRepositories = ['restore', 'list', 'prune', 'verify', 'report', 'repository', 'copy']
  if (ofRepositories.includes(command)) {
    const machine = 'disk:vda=disk.raw'
    await backupMachine(machine, 'backups', { name: 'web1', checkpoint: '20261129T115200Z' })
  }
  if (named('copy')) qemuImg('convert', '-O', 'qcow2', 'overlay.qcow2', 'copy.qcow2')
}

/** Reads a command line as the program does, and stops before the command's work. */
async function parse(args: string[]): Promise<Command> {
  let parsed: Command | undefined
  const program = buildProgram(io, () => {})
  program.hook('preAction', (_program, command) => {
    parsed = command
    throw new Error('parsed')
  })
  await t.rejects(program.parseAsync(args, { from: 'user' }), { message: 'parsed' }, args.join(' '))
  return parsed as Command
}

t.test('every example in help does what it shows', async (t) => {
  t.ok((await examplesOf([])).length > 0, 'the program has examples')
  for (const command of COMMANDS) {
    const examples = await examplesOf([command])
    t.ok(examples.length > 0, `${command} has examples`)
    await t.test(command, async (t) => {
      await prepare(t, command, examples)
      for (const example of examples) {
        const given = argumentsOf(example)
        // No server is there, one that is would not end, and parity starts a hundred processes: these are
        // only parsed.
        if (
          ['parity', 'serve'].includes(command) ||
          given.some((word) => /^(nbd|https:)/.test(word))
        ) {
          await parse(given)
          continue
        }
        const args = given.map((word) =>
          STAND_INS.reduce((text, [pattern, here]) => text.replace(pattern, here), word),
        )
        const isMade = MAKERS.includes(args[0]) && !args.includes('-')
        if (isMade && !args.includes('--force')) args.push('--force')
        const { io, err } = recorder()
        t.equal(await run(() => args, io), 0, `${example}: ${err.join('')}`)
      }
    })
  }
  for (const example of await examplesOf([])) {
    const args = argumentsOf(example)
    if (!args.includes('--help')) await parse(args)
  }
})

/** What commands need besides, for the wrong flag to be all that is wrong. */
const NEEDED: Record<string, string[]> = {
  backup: ['disk:a=b', '--name', 'm', '--repo', 'r'],
  machine: ['disk:a=b', '--name', 'm'],
  list: ['--repo', 'r'],
  prune: ['--repo', 'r', '--keep-last', '1'],
  repository: ['repair'],
  report: ['a', '-o', 'p'],
  serve: ['--listen', 'unix:a', '--control', 'unix:b'],
}

t.test('an error names the option of a flag by that flag', async (t) => {
  const operands = ['a', 'b']
  for (const name of COMMANDS) {
    const program = buildProgram(io, () => {})
    const command = program.commands.find((one) => one.name() === name)!
    // Those of qemu-img read their arguments themselves.
    await program.parseAsync([name, '--help'], { from: 'user' }).catch(() => {})
    for (const flag of command.options.filter((option) => option instanceof Flag)) {
      if (!flag.required || flag.argChoices) continue
      t.match(namingOf(command)(flag.key), /^--/)
      const { io, err } = recorder()
      const given = NEEDED[name] ?? operands.slice(0, command.registeredArguments.length)
      const wrong = [name, ...given, flag.long!, '']
      const status = await run(() => wrong, io)
      if (status !== 2) continue
      t.match(err.join(''), new RegExp(`^qcow2-backup: ${flag.long}: `), wrong.join(' '))
    }
  }
})

t.test('every flag is in the documentation', async (t) => {
  const docs = new URL('../../../docs/', import.meta.url)
  const pages = readdirSync(docs).filter((name) => name.endsWith('.md'))
  const text = pages.map((name) => readFileSync(new URL(name, docs), 'utf8')).join('\n')
  for (const name of COMMANDS) {
    const program = buildProgram(io, () => {})
    const command = program.commands.find((one) => one.name() === name)!
    await program.parseAsync([name, '--help'], { from: 'user' }).catch(() => {})
    for (const { long } of command.options) {
      t.ok(new RegExp(`${long}\\b`).test(text), `${name} ${long}`)
    }
  }
})
