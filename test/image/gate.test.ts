import { copyFileSync, mkdirSync, renameSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { findPlaced, Gate, letGo, type Role } from '../../lib/image/gate.ts'
import type { OpenOptions } from '../../lib/source/open-source.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { watchOpens } from '../support/opens.ts'
import { peek, poke } from '../support/patch.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'
import { contentOf } from '../support/read-source.ts'

/** What the gate finds under a name that an image has: its name and its path without links. */
async function passGate(name: string, image: string, role: Role, allowPaths: string[]) {
  const placed = await findPlaced(image)
  try {
    const found = await new Gate(allowPaths).find(name, placed, role)
    await letGo(found)
    return { path: found.named, real: found.path }
  } finally {
    await letGo(placed)
  }
}

/** A directory of images, one outside of it, and what leads from one to the other. */
function tree(t: Test) {
  const root = t.testdir({
    images: { 'top.qcow2': '', 'base.raw': 'base', sub: { 'below.raw': 'below' } },
    'images-2': { 'near.raw': 'near' },
    secret: { 'key.raw': 'key' },
  })
  symlinkSync('../secret/key.raw', join(root, 'images/link.raw'))
  symlinkSync('../secret', join(root, 'images/door'))
  symlinkSync('base.raw', join(root, 'images/alias.raw'))
  return { root, top: join(root, 'images/top.qcow2') }
}

t.test('names in the directory of the image pass', async (t) => {
  const { root, top } = tree(t)
  const real = join(root, 'images/base.raw')
  const pass = (name: string) => passGate(name, top, 'backing file', [])
  for (const name of ['base.raw', './base.raw', '../images/base.raw', 'sub/../base.raw', real]) {
    t.equal((await pass(name)).real, real, name)
  }
  t.equal((await pass('alias.raw')).real, real, 'a link that stays inside')
})

t.test('all other names are refused, with the remedy', async (t) => {
  const { root, top } = tree(t)
  const key = join(root, 'secret/key.raw')
  const cases = [
    [key, 'secret'],
    ['../secret/key.raw', 'secret'],
    ['link.raw', 'secret'],
    ['door/key.raw', 'secret'],
    ['door/../secret/key.raw', 'secret'],
    ['../images-2/near.raw', 'images-2'],
    ['sub/below.raw', 'images/sub'],
    ['../secret/missing.raw', 'secret'],
  ]
  for (const [name, directory] of cases) {
    const dir = join(root, directory)
    await t.rejects(passGate(name, top, 'backing file', []), {
      code: 'NOT_ALLOWED',
      what: top,
      why: `its backing file '${name}' is outside the image's directory`,
      hint: 'allowPaths',
      hintValue: dir,
    })
    if (name.includes('missing')) continue
    const { real } = await passGate(name, top, 'backing file', [dir])
    t.equal(real.startsWith(`${dir}/`), true, 'the remedy works')
    await t.resolves(passGate(name, top, 'backing file', ['/']), '/ allows all')
    await t.rejects(passGate(name, top, 'backing file', [`${root}/nothing`]), { code: 'IO' })
  }
})

t.test('an allowed directory allows what is below it, also through its own links', async (t) => {
  const { root, top } = tree(t)
  await t.resolves(passGate('../secret/key.raw', top, 'data file', [root]))
  await t.resolves(passGate('../secret/key.raw', top, 'data file', [join(root, 'images/door')]))
  await t.rejects(passGate('../secret/key.raw', top, 'data file', [join(root, 'images')]), {
    code: 'NOT_ALLOWED',
    why: /^its data file /,
  })
})

t.test('protocols are refused, whatever is allowed', async (t) => {
  const { top } = tree(t)
  for (const name of [
    'json:{"driver":"file","filename":"base.raw"}',
    'nbd://localhost/disk',
    'nbd:localhost:10809',
    'file:base.raw',
    'file:///etc/passwd',
    'fat:rw:/',
    'host_device:/dev/sda',
    'a b:c',
    ':x',
  ]) {
    await t.rejects(passGate(name, top, 'backing file', ['/']), {
      code: 'NOT_ALLOWED',
      why: `its backing file '${name}' is not a plain file name; protocols are not followed`,
    })
  }
  await t.rejects(passGate('json:{\n}', top, 'backing file', ['/']), {
    message: /'json:\{\\x0a\}'/,
  })
})

t.test('a colon after a slash is a plain name', async (t) => {
  const { root, top } = tree(t)
  renameSync(join(root, 'images/base.raw'), join(root, 'images/base:1.raw'))
  await t.resolves(passGate('./base:1.raw', top, 'backing file', []))
})

t.test('a backing file that is not there is an IO error', async (t) => {
  const { root, top } = tree(t)
  await t.rejects(passGate('missing.raw', top, 'backing file', []), {
    code: 'IO',
    errno: 'ENOENT',
    what: join(root, 'images/missing.raw'),
  })
})

t.test('an image that was opened through a link has two directories', async (t) => {
  const { root } = tree(t)
  mkdirSync(join(root, 'links'))
  const top = join(root, 'links/top.qcow2')
  symlinkSync('../images/top.qcow2', top)
  symlinkSync('../images/base.raw', join(root, 'links/base.raw'))
  const passed = await passGate('base.raw', top, 'backing file', [])
  t.same(passed, { path: join(root, 'links/base.raw'), real: join(root, 'images/base.raw') })
})

const watched = watchOpens()

/** Opens a source and tells which files were opened on the way, in order. */
async function opened(path: string, options: OpenOptions = {}): Promise<string[]> {
  watched()
  const outcome = await openSource(path, options).catch((error) => error)
  const names = watched().map((name) => basename(name))
  if ('close' in outcome) await outcome.close()
  else names.push(outcome.code)
  return names
}

t.test('nothing is opened but what passed the gate', async (t) => {
  const { root, top } = tree(t)
  const make = (name: string, ...args: string[]) =>
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', name, ...args, top, '1M')

  make('base.raw', '-F', 'raw')
  t.same(await opened(top), ['top.qcow2', 'base.raw'])
  t.same(await opened(top, { format: 'raw' }), ['top.qcow2'], 'raw names nothing')
  make('../secret/key.raw', '-F', 'raw')
  t.same(await opened(top), ['top.qcow2', 'NOT_ALLOWED'])
  t.same(await opened(top, { allowPaths: [root] }), ['top.qcow2', 'key.raw'])
  make('link.raw', '-F', 'raw')
  t.same(await opened(top), ['top.qcow2', 'NOT_ALLOWED'])
  make('json:{"file.filename":"base.raw"}', '-F', 'raw')
  t.same(await opened(top, { allowPaths: ['/'] }), ['top.qcow2', 'NOT_ALLOWED'])
  make('base.raw', '-F', 'vmdk')
  t.same(await opened(top), ['top.qcow2', 'UNSUPPORTED'])
  make('top.qcow2', '-F', 'qcow2')
  t.same(await opened(top), ['top.qcow2', 'top.qcow2', 'BAD_IMAGE'], 'its own backing file')
})

t.test('a backing file whose format is not recorded is not probed', async (t) => {
  const dir = t.testdir()
  const base = join(dir, 'base.qcow2')
  const top = join(dir, 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', base, '1M')
  qemuIo(base, 'write -P 7 0 64k')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top)
  t.equal(peek(top, 112, 4).toString('hex'), 'e2792aca', 'the backing format comes first')
  poke(top, 112, 0x12345678)
  t.same(await opened(top), ['top.qcow2', 'NOT_ALLOWED'])
  await t.rejects(openSource(top), { message: /formats are not guessed$/, hint: 'backingFormat' })
  const source = await openSource(top, { backingFormat: 'qcow2' })
  t.equal((await contentOf(source))[0], 7)
  await source.close()
  const raw = await openSource(top, { backingFormat: 'raw' })
  t.equal((await contentOf(raw)).readUInt32BE(0), 0x514649fb, 'what was said is believed')
  await raw.close()
})

t.test('a chain that comes back, also under another name', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  const make = (name: string, backing: string) =>
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', backing, '-F', 'qcow2', at(name), '1M')
  make('a', 'b')
  make('b', 'c')
  make('c', 'link')
  symlinkSync('b', at('link'))
  await t.rejects(openSource(at('a')), {
    code: 'BAD_IMAGE',
    message: `${at('b')}: appears twice in its own backing chain`,
  })
})

t.test('a chain that is too long is refused', async (t) => {
  const dir = t.testdir()
  const at = (n: number) => join(dir, `${n}.qcow2`)
  qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'x', '-F', 'qcow2', at(0), '1M')
  const name = (n: number) => `${n}.qcow2`
  for (let n = 299; n >= 0; n--) {
    if (n > 0) copyFileSync(at(0), at(n))
    const offset = 4096
    const head = Buffer.alloc(12)
    head.writeBigUInt64BE(BigInt(offset), 0)
    head.writeUInt32BE(name(n + 1).length, 8)
    poke(at(n), 8, head)
    poke(at(n), offset, name(n + 1))
  }
  await t.rejects(openSource(at(0)), {
    code: 'UNSUPPORTED',
    what: at(256),
    why: 'is too deep: a backing chain has at most 256 images',
  })
  poke(at(255), 8, 0n)
  const source = await openSource(at(0))
  t.equal(source.stores.length, 256)
  t.same(new Set(await contentOf(source)), new Set([0]))
  await source.close()
})
