/** Images that name what they should not, given to the program. */
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI } from '../support/cli.ts'
import { measured, nameBacking, refused } from '../support/hostile.ts'
import { poke } from '../support/patch.ts'
import { qemuImg, run } from '../support/qemu.ts'

/**
 * Runs `full` under strace: how it ends, and what it opens, executes or connects to. Numbers in
 * names are all made one: those of threads, descriptors and devices differ from run to run.
 */
function traced(cwd: string, flags: string[] = []) {
  const { status, stderr } = run('env', [
    ...[
      '-u',
      'NODE_OPTIONS',
      '-C',
      cwd,
      'strace',
      '-f',
      '-qq',
      '-y',
      '--seccomp-bpf',
      '-o',
      'strace.log',
    ],
    ...['-e', 'trace=open,openat,openat2,creat,connect,execve'],
    ...[process.execPath, CLI, 'full', ...flags, 'disk.qcow2', 'copy.qcow2'],
  ])
  const calls = readFileSync(join(cwd, 'strace.log'), 'utf8').split('\n')
  const opened = calls.flatMap((line) => {
    // What is only found, not opened, cannot be read.
    if (line.includes('O_PATH')) return []
    // The file that was opened, whatever name it was opened by.
    const result = /^\d+ +(?:open\w*|creat)\(.* = \d+<(.*)>$/.exec(line)
    if (result) return [result[1]]
    const name =
      /^\d+ +(?:open\w*|creat|execve)\((?:AT_FDCWD(?:<[^>]*>)?, )?"((?:[^"\\]|\\.)*)"/.exec(line)
    if (name) return [name[1]]
    return line.includes(' connect(') ? [line] : []
  })
  rmSync(join(cwd, 'strace.log'))
  rmSync(join(cwd, 'copy.qcow2'), { force: true })
  return { status, stderr, opened: new Set(opened.map((name) => name.replace(/\d+/g, 'N'))) }
}

/** The program refuses what `disk.qcow2` names, and opens nothing but what it opens in any case. */
function gated(t: Test, cwd: string, usual: ReadonlySet<string>, line: string): void {
  const { status, stderr, opened } = traced(cwd)
  t.equal(status, 1)
  t.ok(stderr.startsWith(`qcow2-backup: disk.qcow2: ${line}`), stderr)
  t.equal(stderr.split('\n').length, 2, 'one line')
  t.strictSame(
    [...opened].filter((name) => !usual.has(name)),
    [],
    line,
  )
}

t.test('backing names outside of the directory open nothing', async (t) => {
  const outside = t.testdir({ images: {}, 'secret.qcow2': '', 'images-too': {} })
  const cwd = join(outside, 'images')
  const image = join(cwd, 'disk.qcow2')
  const secret = join(outside, 'secret.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', secret, '1M')
  copyFileSync(secret, join(outside, 'images-too', 'secret.qcow2'))
  const fresh = () => qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  fresh()
  const usual = traced(cwd).opened
  t.ok(usual.has(image.replace(/\d+/g, 'N')) && usual.size > 20, 'strace was understood')

  const gate = "is outside the image's directory; allow it with --allow-path"
  const protocol = 'is not a plain file name; protocols are not followed'
  const cases: [name: string, why: string][] = [
    [secret, gate],
    ['../secret.qcow2', gate],
    ['../images-too/secret.qcow2', gate],
    ['/etc/shadow', gate],
    ['/proc/self/mem', gate],
    ['json:{"driver":"file","filename":"/etc/shadow"}', protocol],
    ['nbd://127.0.0.1:10809/disk', protocol],
    ['nbd:unix:/run/socket', protocol],
    ['http://127.0.0.1/disk', protocol],
    ['file:///etc/shadow', protocol],
    ['fat:rw:/etc', protocol],
  ]
  for (const [name, why] of cases) {
    fresh()
    nameBacking(image, name)
    gated(t, cwd, usual, `its backing file '${name}' ${why}`)
  }

  fresh()
  nameBacking(image, '../secret.qcow2')
  const allowed = traced(cwd, ['--allow-path', '..'])
  t.equal(allowed.status, 0, allowed.stderr)
  const more = [...allowed.opened].filter((name) => !usual.has(name))
  t.strictSame(more, [secret.replace(/\d+/g, 'N')], 'strace shows what is opened')
  renameSync(secret, join(outside, 'gone.qcow2'))
  await refused(t, cwd, `disk.qcow2: its backing file '../secret.qcow2' ${gate} ${outside}`, 'gone')
})

t.test('a backing link out of the directory opens nothing', async (t) => {
  const outside = t.testdir({ images: { 'base.qcow2': t.fixture('symlink', '../secret.qcow2') } })
  const cwd = join(outside, 'images')
  qemuImg('create', '-q', '-f', 'qcow2', join(outside, 'secret.qcow2'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk.qcow2'), '1M')
  const usual = traced(cwd).opened
  nameBacking(join(cwd, 'disk.qcow2'), 'base.qcow2')
  gated(t, cwd, usual, "its backing file 'base.qcow2' is outside the image's directory")
})

t.test('data files out of the directory are not opened', async (t) => {
  const cwd = join(t.testdir({ images: {} }), 'images')
  const image = join(cwd, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  const usual = traced(cwd).opened
  for (const name of [
    '/etc/shadow',
    'json:{"driver":"nbd"}',
    'nbd://127.0.0.1/disk',
    '../secret',
  ]) {
    rmSync(image)
    qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${join(cwd, 'data')}`, image, '1M')
    rmSync(join(cwd, 'data'))
    const extension = Buffer.alloc(8 + Math.ceil(name.length / 8) * 8)
    extension.writeUInt32BE(0x44415441)
    extension.writeUInt32BE(name.length, 4)
    extension.write(name, 8)
    poke(image, 112, Buffer.alloc(1024))
    poke(image, 112, extension)
    gated(t, cwd, usual, `its data file '${name}' `)
  }
})

t.test('backing formats that are missing or unknown are refused', async (t) => {
  const cwd = t.testdir()
  const image = join(cwd, 'disk.qcow2')
  const cases = [
    [
      '',
      "does not record the format of its backing file 'base', and formats are not guessed; say what it is with --backing-format",
    ],
    ['vmdk', "its backing format 'vmdk' is not supported"],
    ['\x1b]0;x\x07\r\n', "its backing format '\\x1b]0;x\\x07\\x0d\\x0a' is not supported"],
  ]
  for (const [format, why] of cases) {
    writeFileSync(join(cwd, 'base'), 'guest data')
    rmSync(image, { force: true })
    qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
    nameBacking(image, 'base', format)
    await refused(t, cwd, `disk.qcow2: ${why}`)
  }
})

t.test('names with control characters are printed escaped', async (t) => {
  const cwd = t.testdir()
  const image = join(cwd, 'disk.qcow2')
  for (const name of [
    '/tmp/a\nqcow2-backup: b: done',
    '../\x1b[2J\x1b[31m',
    '../\r\x07\x08\x7f',
    'json:\n{}',
    '../\u202eevil\u2066',
    '../\u2028line\u2029',
    '../\u0085\u009b31m',
    'missing\nfile',
    '\x1b]0;title\x07',
  ]) {
    rmSync(image, { force: true })
    qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
    nameBacking(image, name)
    await refused(t, cwd, /.*disk\.qcow2.*|.*: no such file or directory/, encodeURIComponent(name))
  }
  for (const bytes of [Buffer.from([0xff, 0xfe, 0x80]), Buffer.from('a\0b')]) {
    nameBacking(image, 'x')
    poke(image, 1024, bytes)
    poke(image, 16, bytes.length)
    await refused(t, cwd, /.*: no such file or directory/, bytes.toString('hex'))
  }
  // The user's own names.
  for (const name of ['bad\nname', '\x1b[2J', '\u202e']) {
    const { status, stderr } = await measured(cwd, ['full', name, 'copy.qcow2'])
    t.equal(status, 1)
    t.match(stderr, /^qcow2-backup: [^\p{Cc}\p{Cf}]+: no such file or directory\n$/u)
    const target = await measured(cwd, ['full', 'disk.qcow2', `${name}/copy`])
    t.match(target.stderr, /^qcow2-backup: [^\p{Cc}\p{Cf}]+\n$/u)
  }
})

t.test('chains without an end are refused', async (t) => {
  t.test('a chain that loops is refused', async (t) => {
    const cwd = t.testdir()
    for (const name of ['disk', 'a', 'b']) {
      qemuImg('create', '-q', '-f', 'qcow2', join(cwd, `${name}.qcow2`), '1M')
    }
    nameBacking(join(cwd, 'disk.qcow2'), 'disk.qcow2')
    await refused(t, cwd, /\S*disk\.qcow2: appears twice in its own backing chain/, 'at once')
    nameBacking(join(cwd, 'disk.qcow2'), 'a.qcow2')
    nameBacking(join(cwd, 'a.qcow2'), './b.qcow2')
    nameBacking(join(cwd, 'b.qcow2'), 'a.qcow2')
    await refused(t, cwd, /\S*a\.qcow2: appears twice in its own backing chain/, 'below')
  })

  t.test('a chain that ends in no file is refused', async (t) => {
    const cwd = t.testdir()
    qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk.qcow2'), '1M')
    nameBacking(join(cwd, 'disk.qcow2'), 'none.qcow2')
    await refused(t, cwd, /\S*none\.qcow2: no such file or directory/)
    mkdirSync(join(cwd, 'none.qcow2'))
    await refused(t, cwd, /\S*none\.qcow2: is a directory/)
    rmSync(join(cwd, 'none.qcow2'), { recursive: true })
    run('mkfifo', [join(cwd, 'none.qcow2')])
    await refused(t, cwd, /\S*none\.qcow2: is neither a regular file nor a block device/)
  })

  t.test('a chain of a thousand images is refused', async (t) => {
    const cwd = t.testdir()
    const image = join(cwd, 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', image, '1M')
    for (let i = 0; i < 1000; i++) {
      const copy = join(cwd, `${i}.qcow2`)
      copyFileSync(image, copy)
      // Where there is room in so small a header.
      poke(copy, 112, Buffer.alloc(400))
      poke(copy, 112, Buffer.from('e2792aca0000000571636f7732000000', 'hex'))
      poke(copy, 400, `${i + 1}.qcow2`)
      poke(copy, 8, 400n)
      poke(copy, 16, `${i + 1}.qcow2`.length)
    }
    renameSync(join(cwd, '0.qcow2'), image)
    await refused(t, cwd, /\S*256\.qcow2: is too deep: a backing chain has at most 256 images/)
  })
})
