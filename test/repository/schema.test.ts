/** The files of a repository by their schema: as it is published, as the program reads them, as ajv does. */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { isBackupError } from '../../lib/errors.ts'
import { requireForm } from '../../lib/repository/form.ts'
import { MachineFolder } from '../../lib/repository/machine-folder.ts'
import { requireRecord } from '../../lib/repository/record.ts'
import { describeSchema, FORMS, RECORD } from '../../scripts/repository-schema.ts'
import { effort } from '../support/effort.ts'

t.setTimeout(900_000)

const { Ajv2020 } = createRequire(import.meta.url)('ajv/dist/2020')

const DISK = {
  name: 'vda',
  image: 'vda.p1.qcow2',
  kind: 'incremental',
  reason: 'because',
  virtualSize: 2 ** 30,
  parent: 'p0',
  parentId: '000000000000',
  bitmap: { name: 'p1', granularity: 65536 },
  dataBytes: 0,
  zeroBytes: 0,
  unchangedBytes: 2 ** 30,
  fileSize: 262144,
  allocatedBytes: 8192,
  modified: '2026-11-29T11:52:01.000Z',
  content: { algorithm: 'blake2b-256', blockSize: 4194304, checksum: 'ab' },
}

const POINT = {
  version: 1,
  machine: 'web',
  point: 'p1',
  id: '0123456789ab',
  parent: 'p0',
  parentId: '000000000000',
  time: '2026-11-29T11:52:00.000Z',
  disks: [DISK, { ...DISK, name: 'vdb', image: 'vdb.p1.qcow2' }],
  versions: { 'qcow2-backup': '1.0.0' },
}

/** One of each kind of file, as the program writes it. */
const SAMPLES: Record<string, object> = {
  repository: { format: 1, created: '2026-11-29T11:52:00.000Z' },
  point: POINT,
  run: {
    version: 1,
    run: '0123456789ab',
    point: 'p1',
    files: [{ name: 'vda.p1.qcow2', size: 262144, modified: '2026-11-29T11:52:01.000Z' }],
  },
  prune: {
    version: 1,
    run: '0123456789ab',
    images: ['vda.p1.qcow2'],
    records: [POINT],
    remove: [{ point: 'p0', files: ['vda.p0.qcow2', 'p0.xml'] }],
  },
  verified: {
    version: 1,
    images: { 'vda.p1.qcow2': { time: '2026-11-29T11:52:00Z', same: true, checksum: 'ab' } },
  },
}

/** Places in a value: keys from the top. */
function placesIn(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, one]) => placesIn(one, [...path, key]))]
}

/** A copy with one place changed; undefined removes it. */
function changed(value: unknown, [key, ...rest]: readonly string[], to: unknown): unknown {
  if (key === undefined) return to
  const copy = structuredClone(value) as Record<string, unknown>
  if (rest.length === 0 && to === undefined) delete copy[key]
  else copy[key] = changed(copy[key], rest, to)
  return copy
}

const VALUES = fc.oneof(
  fc.constantFrom(undefined, null, true, 0, 1, 2, -1, 1.5, 511, 2 ** 53, 1e300, '', 'p0', 'a/b'),
  fc.constantFrom('.x', '..', '/etc/passwd', 'a\0', '\ud800', '\n', '2026-02-30T25:00:00Z', [], {}),
  fc.constantFrom('2026-11-29T11:52:00+01:00', '2026-11-29 11:52', '2026-13-01T00:00:00Z', 'full'),
  fc.jsonValue({ maxDepth: 3 }),
)

/** A file of some kind with one to three places changed. */
const HOSTILE = fc.constantFrom(...Object.keys(SAMPLES)).chain((kind) =>
  fc.tuple(
    fc.constant(kind),
    fc
      .array(fc.tuple(fc.constantFrom(...placesIn(SAMPLES[kind])), VALUES), {
        minLength: 1,
        maxLength: 3,
      })
      .map((changes) =>
        changes.reduce<unknown>((value, [path, to]) => {
          const isThere = placesIn(value).some((one) => one.join('/') === path.join('/'))
          return isThere ? changed(value, path, to) : value
        }, SAMPLES[kind]),
      ),
  ),
)

/** How reading ends: well, or with the code of its error; anything else is thrown. */
function codeOf(read: () => unknown): string {
  try {
    read()
    return 'fine'
  } catch (error) {
    if (isBackupError(error) && error.message.startsWith('/f.json: is ')) return error.code
    throw error
  }
}

const context = { machine: 'web', point: 'p1' }

t.test('the published schema is that of the rules; npm run api records a change', async (t) => {
  t.equal(describeSchema(), readFileSync(RECORD, 'utf8'))
  for (const [kind, sample] of Object.entries(SAMPLES)) {
    t.equal(
      codeOf(() => requireForm('/f.json', sample, FORMS[kind].form)),
      'fine',
    )
  }
  t.equal(
    codeOf(() => requireRecord('/f.json', SAMPLES.point, context)),
    'fine',
  )
})

t.test('hostile files are refused clearly, and exactly those that the schema refuses', async () => {
  const ajv = new Ajv2020({ strict: true })
  ajv.addSchema(JSON.parse(describeSchema()), 's')
  const valid = (kind: string, value: unknown) => ajv.validate(`s#/$defs/${kind}`, value)
  fc.assert(
    fc.property(HOSTILE, ([kind, made]) => {
      const value = made === undefined ? null : JSON.parse(JSON.stringify(made))
      const code = codeOf(() => requireForm('/f.json', value, FORMS[kind].form))
      if (!['fine', 'BAD_RECORD', 'UNSUPPORTED'].includes(code)) return false
      if (valid(kind, value) !== (code === 'fine')) return false
      const whole = kind === 'point' ? codeOf(() => requireRecord('/f.json', value, context)) : code
      return code === 'fine' ? ['fine', 'BAD_RECORD'].includes(whole) : whole === code
    }),
    { numRuns: effort(500, 100_000) },
  )
})

t.test('a message names the field', async (t) => {
  const cases: [path: string, value: unknown, message: RegExp][] = [
    ['disks/0/virtualSize', -1, /time: disks: \[0\]: virtualSize: -1 is not a whole number of/],
    ['disks/1/image', '../x', /disks: \[1\]: image: '\.\.\/x' is not the name of a file$/],
    ['disks/0/content/checksum', undefined, /disks: \[0\]: content: checksum is missing$/],
    ['time', 'yesterday', /: time: 'yesterday' is not a time$/],
    ['versions/qcow2-backup', 1, /: versions: 'qcow2-backup': 1 is not a string$/],
    ['disks/0/parentId', undefined, /: disk 'vda' is incremental and lacks a parent$/],
    ['disks/0/kind', 'full', /: disk 'vda' is full and has a parent$/],
    ['disks/1/name', 'vda', /: it has two disks 'vda'$/],
    ['disks/1/image', 'vda.p1.qcow2', /: it has 'vda\.p1\.qcow2' for two disks$/],
  ]
  for (const [path, value, message] of cases) {
    const record = changed(SAMPLES.point, path.split('/'), value)
    t.throws(() => requireRecord('/f.json', record, context), { code: 'BAD_RECORD', message })
  }
})

t.test('a file of any bytes is a record or refused', async (t) => {
  const folder = new MachineFolder('web', t.testdir())
  const path = join(folder.directory, 'p1.json')
  const text = Buffer.from(JSON.stringify(SAMPLES.point))
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((some) => Buffer.from(some)),
    fc.tuple(fc.nat(text.length - 1), fc.nat(255)).map(([at, byte]) => {
      const damaged = Buffer.from(text)
      damaged[at] = byte
      return damaged
    }),
    fc.nat(text.length).map((length) => text.subarray(0, length)),
    fc.constantFrom('[', '{"a":').map((open) => Buffer.from(open.repeat(100_000))),
    fc.constant(Buffer.from(`{"x":${'['.repeat(10_000)}${']'.repeat(10_000)}}`)),
  )
  await fc.assert(
    fc.asyncProperty(bytes, async (content) => {
      writeFileSync(path, content)
      try {
        return (await folder.point('p1'))?.point === 'p1'
      } catch (error) {
        return isBackupError(error) && ['BAD_RECORD', 'UNSUPPORTED'].includes(error.code)
      }
    }),
    { numRuns: effort(100, 20_000) },
  )
})
