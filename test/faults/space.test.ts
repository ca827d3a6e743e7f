/** Targets that cannot be written, from the start or from some moment on. */
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { restore } from '../../lib/index.ts'
import { CLI, runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { someOf } from '../support/effort.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { meanwhile } from '../support/meanwhile.ts'
import { inMountNamespace } from '../support/namespace.ts'
import { run } from '../support/qemu.ts'
import { unprivileged } from '../support/unprivileged.ts'

// More than tap's default, for a busy machine.
t.setTimeout(300_000)

const MIB = 2 ** 20
/** Begins as an image does: nothing else is replaced by one. */
const OLD = Buffer.from('QFI\xfbwhat stood there\n', 'latin1')
const OLD_IN_SHELL = 'QFI\\373what stood there\\n'
const PROGRAM = [process.execPath, CLI]

/** Ways of writing a target. */
const COMMANDS = {
  full: ['full'],
  'full, compressed, threads, buffered': [
    ...['full', '--compress', 'zstd'],
    ...['--engine', 'threads', '--direct', 'off'],
  ],
  restore: ['restore', '-f', 'raw'],
}

/** A directory with a disk that does not compress, and something that stands there. */
function setUp(test: Test, size = 16 * MIB): string {
  const directory = test.testdir({ small: { old: OLD } })
  makeRaw(join(directory, 'disk.raw'), size, [{ at: 0, bytes: noise(size) }])
  return directory
}

/**
 * Mounts something on `small`, runs the program to a new and to an old target there, and prints
 * the status, what it wrote, what is in `small` then, and the old content.
 * @param mount shell commands; `$1` is the directory, which is the current one
 */
function attempts(mount: string): string {
  return `
    cd "$1"
    ${mount}
    shift
    for target in new old; do
      status=0
      "$@" disk.raw small/$target --force >out 2>&1 || status=$?
      echo "$status $(cat out)"
      ls -A small
      cat small/old
    done`
}

/** What `attempts` prints when both fail with such a line. */
function failures(line: (target: string) => string): RegExp {
  const one = (target: string) =>
    `1 qcow2-backup: ${line(target)}\n(lost\\+found\n)?old\nQFI\ufffdwhat stood there\n`
  return new RegExp(`^${one('new')}${one('old')}$`)
}

const FULL_DISKS = {
  'a full tmpfs': [
    `mount -t tmpfs -o size=4m none small; printf '${OLD_IN_SHELL}' >small/old`,
    failures((target) => `small/${target}: write at \\d+: no space left on device`),
  ],
  'a tmpfs without a free inode': [
    `mount -t tmpfs -o nr_inodes=2 none small; printf '${OLD_IN_SHELL}' >small/old`,
    failures(() => '\\S+/small: no space left on device'),
  ],
  'a read-only file system': [
    `mount -t tmpfs none small; printf '${OLD_IN_SHELL}' >small/old; mount -o remount,ro small`,
    failures(() => '\\S+/small: read-only file system'),
  ],
} as const

for (const [index, [name, [mount, expected]]] of Object.entries(FULL_DISKS).entries()) {
  t.test(name, async (t) => {
    for (const [how, command] of someOf(Object.entries(COMMANDS), index)) {
      const directory = setUp(t)
      const result = inMountNamespace(attempts(mount), directory, ...PROGRAM, ...command)
      t.equal(result.status, 0, result.stderr)
      t.match(result.stdout, expected, how)
    }
  })
}

t.test('a full ext4 fails the copy, and leaves nothing', { skip: NO_LOOP_DEVICES }, async (t) => {
  const mount = `
    truncate -s 8M ext4
    mkfs.ext4 -q ext4
    mount -o loop ext4 small
    printf '${OLD_IN_SHELL}' >small/old`
  const expected = failures((target) => `small/${target}: write at \\d+: no space left on device`)
  for (const [how, command] of someOf(Object.entries(COMMANDS), 0)) {
    const directory = setUp(t)
    const result = inMountNamespace(attempts(mount), directory, ...PROGRAM, ...command)
    t.equal(result.status, 0, result.stderr)
    t.match(result.stdout, expected, how)
  }
})

// Where it was ignored before, SIGXFSZ would still be.
const LIMITED = ['env', '--default-signal=XFSZ', ...PROGRAM]

t.test('a limit of file sizes once ended the program by SIGXFSZ', async (t) => {
  for (const [how, command] of someOf(Object.entries(COMMANDS), 1)) {
    const directory = setUp(t)
    const result = run('bash', [
      ...['-euc', attempts('ulimit -f 1024'), 'bash'],
      ...[directory, ...LIMITED, ...command],
    ])
    t.equal(result.status, 0, result.stderr)
    const line = 'set length: file too large for this file system or limit'
    t.match(
      result.stdout,
      failures((target) => `small/${target}: ${line}`),
      how,
    )
  }
})

t.test('an image that fits below a limit of file sizes is made', async (t) => {
  const directory = setUp(t, MIB)
  // Less than what a file is given ahead, more than the image.
  const script = 'cd "$1"; ulimit -f 2048; shift; "$@"'
  const command = [...LIMITED, 'full', 'disk.raw', 'new.qcow2']
  const { status, stderr } = run('bash', ['-euc', script, 'bash', directory, ...command])
  t.equal(status, 0, stderr)
})

t.test('a directory that may not be written is named', async (t) => {
  const directory = setUp(t)
  chmodSync(join(directory, 'small'), 0o555)
  const command = unprivileged(PROGRAM)
  for (const args of someOf(Object.values(COMMANDS), 2)) {
    const { status, stdout } = run('bash', [
      ...['-euc', attempts(''), 'bash', directory],
      ...[...command, ...args],
    ])
    t.equal(status, 0)
    t.match(
      stdout,
      failures(() => '\\S+/small: permission denied'),
    )
  }
  chmodSync(join(directory, 'small'), 0o755)
})

t.test('/dev/full is refused as a target', async (t) => {
  const cwd = setUp(t)
  for (const args of someOf(Object.values(COMMANDS), 0)) {
    const { status, stdout, stderr } = await runCli([...args, 'disk.raw', '/dev/full', '--force'], {
      cwd,
    })
    t.equal(stderr, 'qcow2-backup: /dev/full: is a character device\n')
    t.equal(status, 1)
    t.equal(stdout, '')
  }
})

t.test('standard output on a full disk is an error', async (t) => {
  const cwd = setUp(t, MIB)
  for (const args of [
    'full disk.raw new.qcow2',
    'full --json disk.raw new.qcow2 --force',
    'extents disk.raw',
  ]) {
    const { status, stderr } = run('bash', [
      ...['-euc', 'cd "$1"; shift; "$@" >/dev/full', 'bash', cwd],
      ...[...PROGRAM, ...args.split(' ')],
    ])
    t.equal(status, 1)
    t.equal(stderr, 'qcow2-backup: standard output: no space left on device\n')
  }
})

t.test('a directory that is not there is named', async (t) => {
  const cwd = setUp(t)
  for (const args of someOf(Object.values(COMMANDS), 1)) {
    const { status, stderr } = await runCli([...args, 'disk.raw', 'none/new', '--force'], { cwd })
    t.equal(stderr, 'qcow2-backup: none: no such directory\n')
    t.equal(status, 1)
  }
  t.notOk(existsSync(join(cwd, 'none')))
})

t.test(
  'a directory that is moved in mid copy takes the target along; a removed one fails',
  async (t) => {
    for (const [how, args] of someOf(Object.entries(COMMANDS), 2)) {
      const cwd = setUp(t)
      const small = join(cwd, 'small')
      for (const target of ['new', 'old']) {
        const copy = [...args, '--force', 'disk.raw', `small/${target}`]
        const result = await meanwhile(cwd, copy, () => renameSync(small, join(cwd, 'moved')))
        // A path is resolved once: the directory that was meant is the one that was opened.
        t.equal(result.status, 0, how)
        const where = join(cwd, 'moved', target)
        const note = `small/${target}: does not lead to it any more; it is ${where}`
        t.ok(result.stdout.startsWith(`${where}: `), `the result names it: ${result.stdout}`)
        t.ok(result.stdout.includes(`note: ${note}\n`), 'and says why')
        t.notOk(existsSync(small), 'nothing is made under the name that it had')
        const moved = join(cwd, 'moved')
        t.strictSame(readdirSync(moved).sort(), ['new', 'old'].slice(target === 'new' ? 0 : 1))
        t.notOk(readFileSync(join(moved, target)).equals(OLD))
        if (target === 'new') rmSync(join(moved, 'new'))
        renameSync(moved, small)
      }
      const result = await meanwhile(cwd, [...args, 'disk.raw', 'small/new'], () =>
        rmSync(small, { recursive: true }),
      )
      t.equal(result.status, 1, how)
      t.equal(result.line, 'qcow2-backup: small/new: no such file or directory')
      t.strictSame(readdirSync(cwd), ['disk.raw'])
    }
  },
)

t.test('a name that is taken in mid copy is left alone', async (t) => {
  const cwd = setUp(t)
  const path = join(cwd, 'small', 'new')
  const taken = await meanwhile(cwd, ['full', 'disk.raw', 'small/new'], () =>
    writeFileSync(path, OLD),
  )
  t.equal(taken.status, 1)
  t.equal(
    taken.line,
    'qcow2-backup: small/new: was made by another process meanwhile; --force replaces it',
  )
  t.ok(readFileSync(path).equals(OLD))

  const directory = await meanwhile(cwd, ['full', '--force', 'disk.raw', 'small/new'], () => {
    rmSync(path)
    mkdirSync(path)
  })
  t.equal(directory.status, 1)
  t.match(directory.line, /^qcow2-backup: small\/new: (is a directory|was made by another process)/)
  t.strictSame(readdirSync(join(cwd, 'small')).sort(), ['new', 'old'])
})

t.test('the path of a descriptor: the note says where the new file is, and no more', async (t) => {
  const cwd = setUp(t)
  const fd = openSync(join(cwd, 'small', 'old'), 'r+')
  t.teardown(() => closeSync(fd))
  const { target, notes } = await restore(join(cwd, 'disk.raw'), `/dev/fd/${fd}`, {
    format: 'raw',
    force: true,
  })
  t.equal(target, join(cwd, 'small', 'old'))
  t.strictSame(notes, [`/dev/fd/${fd}: does not lead to it any more; it is ${target}`])
})
