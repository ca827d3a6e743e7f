/** What a caller does with its arguments after a call began changes nothing: they are read once, and copied. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { CustomSource, CustomTarget } from '../../lib/index.ts'
import * as lib from '../../lib/index.ts'
import { qemuImg } from '../support/qemu.ts'

/** An object whose properties can be read once only. */
function readOnce<const T extends object>(values: T): T {
  const read = new Set<PropertyKey>()
  return new Proxy(values, {
    get(target, key) {
      if (read.has(key)) throw new Error(`${String(key)} was read twice`)
      read.add(key)
      return Reflect.get(target, key)
    },
  })
}

t.test('every property of an argument is read once', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', at('disk'), '1M')
  const written: number[] = []
  const target: CustomTarget = {
    name: 'mine',
    size: 2 ** 20,
    async write(offset) {
      written.push(offset)
    },
    async flush() {},
  }
  const source: CustomSource = {
    name: 'mine',
    size: 65536,
    extents: () => [{ start: 0, length: 65536, zero: false }],
    read: async () => new Uint8Array(65536).fill(1),
  }
  await lib.fullBackup(readOnce(source), readOnce({ ...target, size: 65536 }), readOnce({}))
  t.ok(written.length > 0)
  await lib.restore(at('disk'), readOnce(target))
  const opened = await lib.openSource(readOnce(source))
  await opened.close()
  await lib.editBitmap(at('disk'), 'b', readOnce([readOnce({ kind: 'add', granularity: 4096 })]))
  await lib.rebaseImage(at('disk'), readOnce({ file: at('base'), format: 'qcow2' }))
  await lib
    .compareImages(readOnce([at('disk'), at('base')]), { formats: readOnce(['qcow2', 'raw']) })
    .catch((error) => t.match(error, { status: 2 }, 'two formats that are not theirs'))
  await lib.measureImage(at('disk'), { snapshot: readOnce({ id: '1' }) }).catch((error) => {
    t.match(error.message, /snapshot/, 'there is none')
  })
  for await (const _ of lib.verifyManifests(readOnce([at('disk')])));
  const [health] = lib.validateBitmapChain(
    readOnce([
      readOnce({
        image: 'top',
        bitmaps: readOnce([
          readOnce({
            ...{ name: 'b', granularity: 65536, recording: true, persistent: true },
            inconsistent: false,
          }),
        ]),
      }),
    ]),
  )
  t.equal(health.valid, true)
})

t.test('methods of sources and targets are called as methods', async (t) => {
  class Disk {
    readonly #bytes = new Uint8Array(65536).fill(7)
    readonly name = 'mine'
    readonly size = 65536
    extents() {
      return [{ start: 0, length: this.#bytes.length, zero: false }]
    }
    async read(start: number, length: number) {
      return this.#bytes.subarray(start, start + length)
    }
  }
  class Target {
    readonly #parts: Uint8Array[] = []
    readonly name = 'mine'
    async write(_offset: number, data: Uint8Array) {
      this.#parts.push(data)
    }
    async flush() {}
    get bytes() {
      return Buffer.concat(this.#parts)
    }
  }
  const target = new Target()
  await lib.fullBackup(new Disk(), target)
  t.ok(target.bytes.equals(Buffer.alloc(65536, 7)))
})

t.test('a getter that throws is a USAGE error, whenever it throws', async (t) => {
  const name = {
    get name(): string {
      throw new Error('mine')
    },
  }
  const target = Object.assign(name, { write: async () => {}, flush: async () => {} })
  await t.rejects(lib.restore('disk', target), { code: 'USAGE', argument: 'target' })
})

t.test('what is allowed is what was checked', async (t) => {
  const dir = t.testdir({ outside: {}, inside: {} })
  const at = (name: string) => join(dir, name)
  writeFileSync(at('outside/base'), Buffer.alloc(65536, 'secret'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', at('outside/base'), '-F', 'raw', at('inside/top'))
  const allowPaths = [at('inside')]
  const copy = lib.fullBackup(at('inside/top'), at('new'), { allowPaths })
  const opening = lib.openSource(at('inside/top'), { allowPaths })
  allowPaths[0] = '/'
  const refused = { code: 'NOT_ALLOWED' }
  await Promise.all([t.rejects(copy, refused), t.rejects(opening, refused)])
  const operations: lib.BitmapOperation[] = [{ kind: 'add' }]
  const adding = lib.editBitmap(at('inside/top'), 'b', operations)
  operations[0].kind = 'remove'
  operations.push({ kind: 'remove-all' })
  await adding
  t.match(await lib.listBitmaps(at('inside/top')), [{ name: 'b' }])
})
