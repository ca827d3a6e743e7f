/** Names of machines and disks as names of files: safe, told apart, and read back. */
import { basename } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import {
  definitionName,
  imageName,
  imageOf,
  isPointName,
  machineDirectory,
  machineOf,
  pointOf,
  recordName,
} from '../../lib/repository/names.ts'
import { decodeText, encodeText } from '../../lib/text.ts'

const HOSTILE = [
  ...[
    '.',
    '..',
    '...',
    '.lock',
    '/',
    '../x',
    'a/b',
    '%',
    '%2F',
    '%-',
    '-rf',
    '\0',
    'a\nb',
    ' ',
    '',
  ],
  ...[
    'repository.json',
    'lost+found',
    'ünïcödé',
    '\u202egnp',
    decodeText(Buffer.from('a\xffb', 'latin1')),
  ],
  ...['x'.repeat(255), 'x'.repeat(256), 'x'.repeat(5000), 'ü'.repeat(200), '%'.repeat(300)],
]

t.test('plain names stay as they are', async (t) => {
  t.equal(machineDirectory('web-1.example.org'), 'web-1.example.org')
  t.equal(imageName('vda', '20261129T115200Z'), 'vda.20261129T115200Z.qcow2')
  t.equal(imageName('sda.1', 'p.1'), 'sda%2E1.p.1.qcow2', 'the first dot ends the disk')
  t.equal(recordName('p'), 'p.json')
  t.equal(definitionName('p'), 'p.xml')
})

t.test('hostile names are safe, and different', async (t) => {
  const names = new Set<string>()
  for (const name of HOSTILE) {
    for (const file of [machineDirectory(name), imageName(name, 'p'.repeat(120))]) {
      t.equal(basename(file), file, name)
      t.notMatch(file, /^\.|^-|\0|\n|\u202e/)
      t.ok(encodeText(file).length <= 255, `${encodeText(file).length} bytes`)
      t.notOk(names.has(file), `${file} is new`)
      names.add(file)
    }
    t.notOk(['repository.json', 'lost+found'].includes(machineDirectory(name)))
    const isCut = machineDirectory(name).includes('%-')
    if (!isCut) t.equal(machineOf(machineDirectory(name)), name)
  }
})

t.test('any two names are told apart, and read back', async () => {
  const name = fc
    .uint8Array({ maxLength: 60 })
    .map((bytes) => decodeText(Buffer.from(bytes)))
    .filter((text) => text !== '')
  fc.assert(
    fc.property(
      name,
      name,
      fc.constantFrom('p', 'p.q', 'q'),
      fc.constantFrom('p', 'q'),
      (a, b, p, q) => {
        const short = !machineDirectory(a).includes('%-')
        if (short && machineOf(machineDirectory(a)) !== a) return false
        if (a !== b && machineDirectory(a) === machineDirectory(b)) return false
        return (a === b && p === q) || imageName(a, p) !== imageName(b, q)
      },
    ),
    { numRuns: 2000 },
  )
})

t.test('the disk and the point of an image are read from its name', async (t) => {
  for (const disk of ['vda', 'sda.1', '-x', 'a%b', 'ü/\0']) {
    t.strictSame(imageOf(imageName(disk, 'p.1')), { disk, point: 'p.1' })
  }
  t.strictSame(imageOf(imageName('x'.repeat(300), 'p')), { point: 'p' })
  for (const file of ['x.qcow2', '.x.p.qcow2', 'x.p.raw', 'x..qcow2', '%2f.p.qcow2', 'a.@.qcow2']) {
    t.equal(imageOf(file), undefined, file)
  }
})

t.test('names of points are no paths', async (t) => {
  for (const name of ['p', '20261129T115200Z', 'before-update.2', 'ü', 'a b']) {
    t.ok(isPointName(name), name)
    t.equal(pointOf(recordName(name)), name)
  }
  for (const name of ['', '.p', '-p', '/', 'a/b', 'a@b', 'a%b', 'a\0', '\u202e', 'x'.repeat(121)]) {
    t.notOk(isPointName(name), name)
    t.equal(pointOf(`${name}.json`), undefined)
  }
  t.equal(pointOf('.run.json'), undefined)
})
