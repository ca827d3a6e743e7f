import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { openTarget, publishAll, type Target } from '../../../lib/copy/target/open-target.ts'
import { openFile } from '../../../lib/image/file.ts'
import type { SourceFile } from '../../../lib/source/source.ts'
import { NO_LOOP_DEVICES } from '../../support/loop.ts'
import { socketDirectory } from '../../support/server.ts'

/** A file as a source that reads it lists it. */
async function sourceFile(test: Test, path: string): Promise<SourceFile> {
  const file = await openFile(path)
  test.teardown(() => file.handle.close())
  return file
}

async function open(path: string, force = false, sources: SourceFile[] = []): Promise<Target> {
  return openTarget(path, { force, sources })
}

/** Writes through the descriptor that the addon gets. */
function write(target: Target, text: string, at = 0): void {
  const { store } = target
  if (!('fd' in store)) throw new Error('no file')
  writeSync(store.fd, text, at)
}

/** A directory on tmpfs, whose O_TMPFILE is its own. */
function tmpfsDirectory(test: Test): string {
  const directory = mkdtempSync('/dev/shm/target-test-')
  test.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

/** A file system where O_TMPFILE, and maybe links too, fail with these errors, until the test ends. */
function refuse(test: Test, errors: { tmpfile: string; link?: string }): void {
  const { open, link } = promises
  const fail = (code: string) => Promise.reject(Object.assign(new Error(code), { code }))
  promises.open = (path, flags, mode) =>
    typeof flags === 'number' && flags & 0o20000000 ? fail(errors.tmpfile) : open(path, flags, mode)
  if (errors.link) promises.link = () => fail(errors.link!)
  syncBuiltinESMExports()
  test.teardown(() => {
    Object.assign(promises, { open, link })
    syncBuiltinESMExports()
  })
}

for (const where of ['disk', 'tmpfs']) {
  t.test(`a new file on ${where}`, async (t) => {
    const directory = where === 'disk' ? t.testdir() : tmpfsDirectory(t)
    const path = join(directory, 'new.qcow2')

    t.test('appears when published, complete, for its owner only', async (t) => {
      const target = await open(path)
      t.equal(target.path, path)
      t.equal(target.capacity, undefined)
      write(target, 'content', 4096)
      t.strictSame(readdirSync(directory), [], 'no name before')
      await publishAll([[target]])
      t.strictSame(readdirSync(directory), ['new.qcow2'])
      t.equal(readFileSync(path).subarray(4096).toString(), 'content')
      t.equal(statSync(path).mode & 0o777, 0o600)
      await target.discard()
      t.ok(existsSync(path), 'discard after publish removes nothing')
      rmSync(path)
    })

    t.test('leaves nothing when discarded, twice even', async (t) => {
      const target = await open(path)
      write(target, 'content')
      await target.discard()
      await target.discard()
      t.strictSame(readdirSync(directory), [])
    })
  })
}

t.test('a target that exists is refused without force, and kept until publishing', async (t) => {
  const old = 'what stood there'
  const setUp = (t: Test) => join(t.testdir({ 'a.raw': old }), 'a.raw')

  t.test('without force the target is refused', async (t) => {
    const path = setUp(t)
    await t.rejects(open(path), {
      code: 'TARGET_EXISTS',
      message: `${path}: exists`,
      hint: 'force',
    })
    t.equal(readFileSync(path, 'utf8'), old)
  })

  t.test('is replaced with force, when published and not before', async (t) => {
    const path = setUp(t)
    const target = await open(path, true)
    write(target, 'new')
    t.equal(readFileSync(path, 'utf8'), old)
    await publishAll([[target]])
    t.equal(readFileSync(path, 'utf8'), 'new')
    t.equal(statSync(path).mode & 0o777, 0o600, "the old file's mode is not kept")
    t.strictSame(readdirSync(dirname(path)), ['a.raw'], 'nothing beside it')
  })

  t.test('stays as it was when the new one is discarded', async (t) => {
    const path = setUp(t)
    const target = await open(path, true)
    write(target, 'new')
    await target.discard()
    t.equal(readFileSync(path, 'utf8'), old)
    t.strictSame(readdirSync(dirname(path)), ['a.raw'])
  })

  t.test('stays as it was when the name was taken after opening', async (t) => {
    const path = join(t.testdir(), 'late.raw')
    const target = await open(path)
    write(target, 'new')
    writeFileSync(path, old)
    await t.rejects(publishAll([[target]]), { code: 'TARGET_EXISTS', what: path })
    await target.discard()
    t.equal(readFileSync(path, 'utf8'), old)
    t.strictSame(readdirSync(dirname(path)), ['late.raw'])
  })

  t.test('that became a directory is not replaced, and nothing stays behind', async (t) => {
    const path = join(t.testdir(), 'late.raw')
    const target = await open(path, true)
    await promises.mkdir(path)
    await t.rejects(publishAll([[target]]), { code: 'IO', message: `${path}: is a directory` })
    await target.discard()
    t.strictSame(readdirSync(dirname(path)), ['late.raw'])
  })
})

t.test('symbolic links to targets are followed', async (t) => {
  t.test('the file that one names is replaced, the link stays', async (t) => {
    const directory = t.testdir({ 'real.raw': 'old', links: { a: t.fixture('symlink', '../b') } })
    symlinkSync('real.raw', join(directory, 'b'))
    const path = join(directory, 'links', 'a')
    await t.rejects(open(path), { code: 'TARGET_EXISTS' })
    const target = await open(path, true)
    write(target, 'new')
    await publishAll([[target]])
    t.equal(readFileSync(join(directory, 'real.raw'), 'utf8'), 'new')
    t.ok(lstatSync(path).isSymbolicLink())
    t.ok(lstatSync(join(directory, 'b')).isSymbolicLink())
  })

  t.test('the file that a dangling one names is made', async (t) => {
    const directory = t.testdir({ sub: {}, link: t.fixture('symlink', 'sub/new.raw') })
    const target = await open(join(directory, 'link'))
    await publishAll([[target]])
    t.strictSame(readdirSync(join(directory, 'sub')), ['new.raw'])
    t.ok(lstatSync(join(directory, 'link')).isSymbolicLink())
  })

  t.test('a loop of them is refused', async (t) => {
    const directory = t.testdir({ a: t.fixture('symlink', 'b'), b: t.fixture('symlink', 'a') })
    const path = join(directory, 'a')
    await t.rejects(open(path), { code: 'IO', message: `${path}: too many symbolic links` })
  })
})

t.test('the source is never the target', async (t) => {
  const directory = t.testdir({ 'disk.raw': 'the disk', 'base.raw': 'its base' })
  const disk = join(directory, 'disk.raw')
  linkSync(disk, join(directory, 'hard'))
  symlinkSync('disk.raw', join(directory, 'soft'))
  const base = join(directory, 'base.raw')
  const sources = [await sourceFile(t, disk), await sourceFile(t, base)]
  for (const name of ['disk.raw', 'hard', 'soft', 'base.raw']) {
    for (const force of [false, true]) {
      await t.rejects(
        open(join(directory, name), force, sources),
        { code: 'BAD_TARGET', why: /^is the source/ },
        `${name}, ${force ? 'with' : 'without'} force`,
      )
    }
  }
  t.equal(readFileSync(disk, 'utf8'), 'the disk')
})

t.test('what cannot be a target is refused', async (t) => {
  const directory = t.testdir({ sub: {}, file: '' })
  const at = (name: string) => join(directory, name)
  spawnSync('mkfifo', [at('pipe')])
  const socket = join(socketDirectory(t), 'socket')
  const server = createServer().listen(socket)
  await once(server, 'listening')
  t.teardown(() => server.close())

  const cases: [path: string, error: { code: string; [key: string]: string | RegExp }][] = [
    ['', { code: 'USAGE', message: 'target: the name is empty' }],
    [at('sub'), { code: 'BAD_TARGET', message: `${at('sub')}: is a directory` }],
    [at('sub/'), { code: 'BAD_TARGET', message: `${at('sub')}/: is a directory` }],
    [at('new/'), { code: 'BAD_TARGET' }],
    ['/', { code: 'BAD_TARGET' }],
    ['.', { code: 'BAD_TARGET' }],
    [at('pipe'), { code: 'BAD_TARGET', message: `${at('pipe')}: is a named pipe` }],
    [socket, { code: 'BAD_TARGET', message: `${socket}: is a socket` }],
    ['/dev/null', { code: 'BAD_TARGET', message: '/dev/null: is a character device' }],
    [at('none/a'), { code: 'IO', message: `${at('none')}: no such directory` }],
    [at('file/a'), { code: 'IO', why: 'a part of the path is not a directory' }],
    [at('n'.repeat(256)), { code: 'IO', why: 'file name too long' }],
    ['/proc/new', { code: 'IO', message: '/proc: new files cannot be made in this directory' }],
    ['/sys/new', { code: 'IO', what: '/sys', why: /permission denied|not permitted|read-only/ }],
  ]
  for (const [path, error] of cases) {
    for (const force of [false, true]) await t.rejects(open(path, force), error, path)
  }
  t.strictSame(readdirSync(directory).sort(), ['file', 'pipe', 'sub'])
})

t.test('a relative path is a target, and its missing directory is named as given', async (t) => {
  t.chdir(t.testdir())
  const target = await open('here.raw')
  await publishAll([[target]])
  t.ok(existsSync('here.raw'))
  await t.rejects(open('none/here.raw'), { message: 'none: no such directory' })
})

t.test('a file system without O_TMPFILE gets named temporary files', async (t) => {
  for (const tmpfile of ['ENOTSUP', 'EISDIR', 'EINVAL', 'ENOENT']) {
    t.test(`that says ${tmpfile}`, async (t) => {
      refuse(t, { tmpfile })
      const directory = t.testdir()
      const path = join(directory, 'a.raw')
      const target = await open(path)
      const names = readdirSync(directory)
      t.equal(names.length, 1)
      t.match(names[0], /^\.a\.raw\.[0-9a-f]{12}\.partial$/)
      t.equal(statSync(join(directory, names[0])).mode & 0o777, 0o600)
      write(target, 'new')
      await publishAll([[target]])
      t.strictSame(readdirSync(directory), ['a.raw'])
      t.equal(readFileSync(path, 'utf8'), 'new')
    })
  }

  for (const link of [undefined, 'EPERM']) {
    const links = link ? 'without hard links' : 'with hard links'
    t.test(`${links}: late names, force, discard`, async (t) => {
      refuse(t, { tmpfile: 'ENOTSUP', link })
      const directory = t.testdir()
      const path = join(directory, 'a.raw')

      const late = await open(path)
      writeFileSync(path, 'old')
      await t.rejects(publishAll([[late]]), { code: 'TARGET_EXISTS' })
      await late.discard()
      t.equal(readFileSync(path, 'utf8'), 'old')
      t.strictSame(readdirSync(directory), ['a.raw'])

      const forced = await open(path, true)
      write(forced, 'new')
      await publishAll([[forced]])
      t.equal(readFileSync(path, 'utf8'), 'new')
      t.strictSame(readdirSync(directory), ['a.raw'])

      rmSync(path)
      const fresh = await open(path)
      await publishAll([[fresh]])
      t.strictSame(readdirSync(directory), ['a.raw'])
    })
  }

  t.test('a long name is cut in the temporary one', async (t) => {
    refuse(t, { tmpfile: 'ENOTSUP' })
    const directory = t.testdir()
    const path = join(directory, 'ä'.repeat(127))
    const target = await open(path)
    await publishAll([[target]])
    t.strictSame(readdirSync(directory), [basename(path)])
  })

  t.test('process.exit() leaves nothing', async (t) => {
    const directory = t.testdir()
    const module = new URL('../../../lib/copy/target/temporary-file.js', import.meta.url)
    const script = `
      import { syncBuiltinESMExports } from 'node:module'
      import promises from 'node:fs/promises'
      import { readdirSync } from 'node:fs'
      const { open } = promises
      promises.open = (path, flags, mode) =>
        (flags & 0o20000000)
          ? Promise.reject(Object.assign(new Error(), { code: 'ENOTSUP' }))
          : open(path, flags, mode)
      syncBuiltinESMExports()
      const { TemporaryFile } = await import('${module}')
      const { locate } = await import('${new URL('location.js', module)}')
      globalThis.kept = await TemporaryFile.in(await locate('${join(directory, 'a.raw')}'))
      console.log(readdirSync('${directory}').length)
      process.exit(3)`
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', script])
    t.equal(run.status, 3, run.stderr.toString())
    t.equal(run.stdout.toString(), '1\n', 'it was there')
    t.strictSame(readdirSync(directory), [])
  })
})

t.test('kill -9 leaves nothing where there is O_TMPFILE', async (t) => {
  const directory = t.testdir()
  const module = new URL('../../../lib/copy/target/open-target.js', import.meta.url)
  const script = `
    import { writeSync } from 'node:fs'
    const { openTarget } = await import('${module}')
    const target = await openTarget('${join(directory, 'a.raw')}', { sources: [] })
    writeSync(target.store.fd, 'x'.repeat(65536))
    process.kill(process.pid, 'SIGKILL')`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script])
  t.equal(run.signal, 'SIGKILL', run.stderr.toString())
  t.strictSame(readdirSync(directory), [])
})

/** A loop device over a new file. */
function loopDevice(test: Test): string {
  const backing = join(mkdtempSync(join(tmpdir(), 'target-loop-')), 'backing')
  test.teardown(() => rmSync(dirname(backing), { recursive: true }))
  writeFileSync(backing, '')
  truncateSync(backing, 1024 * 1024)
  const { status, stdout, stderr } = spawnSync('losetup', ['--find', '--show', backing])
  if (status !== 0) throw new Error(`losetup: ${stderr}`)
  const device = stdout.toString().trim()
  test.teardown(() => spawnSync('losetup', ['--detach', device]))
  return device
}

/** Only root gets loop devices, and not in every container. */

t.test('a block device is a target by force', { skip: NO_LOOP_DEVICES }, async (t) => {
  const device = loopDevice(t)
  await t.rejects(open(device), { code: 'TARGET_EXISTS' }, 'needs force, as it exists')
  await t.rejects(
    open(device, true, [await sourceFile(t, device)]),
    { code: 'BAD_TARGET', message: `${device}: is the source` },
    'not the source',
  )

  const target = await open(device, true)
  t.equal(target.capacity, 1024 * 1024)
  write(target, 'written in place', 512)
  await t.rejects(
    open(device, true),
    { code: 'IN_USE', why: /^is in use/ },
    'the second one to want it exclusively',
  )
  await publishAll([[target]])
  await target.discard()
  t.equal(readFileSync(device).subarray(512, 528).toString(), 'written in place')
  t.ok(lstatSync(device).isBlockDevice())
})
