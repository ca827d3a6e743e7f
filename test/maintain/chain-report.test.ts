import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  factsFromQmp,
  type NamedBlockNode,
  readBitmapChain,
  validateBitmapChain,
} from '../../lib/index.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, run } from '../support/qemu.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

/** Bytes of the header, and the bit of the bitmaps extension there. */
const AUTOCLEAR = 88
const BITMAPS = 1n

/** Makes a chain of three images of 4 MiB, each with bitmap `b`; returns their paths, top first. */
function makeChain(t: Test): [string, string, string] {
  const [top, mid, base] = ['top', 'mid', 'base'].map((name) => join(t.testdirName, name))
  qemuImg('create', '-q', '-f', 'qcow2', base, '4M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', mid)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'mid', '-F', 'qcow2', top)
  for (const image of [top, mid, base]) qemuImg('bitmap', '--add', image, 'b')
  return [top, mid, base]
}

/** Whether `b` is valid, and what is wrong with it, without the remedy. */
async function judged(top: string): Promise<[boolean, string[]]> {
  const { bitmaps } = await readBitmapChain(top)
  const { valid, reasons } = bitmaps.find(({ name }) => name === 'b')!
  return [valid, reasons.map((reason) => reason.replace(/;.*/, ''))]
}

t.test('bitmaps without a fault along the chain are valid', async (t) => {
  t.testdir()
  const [top, mid, base] = makeChain(t)
  qemuImg('bitmap', '--add', '-g', '4k', '--disable', base, 'old')
  const { images, bitmaps } = await readBitmapChain(top)
  t.strictSame(
    images,
    [top, mid, base].map((image) => {
      return { image, format: 'qcow2', virtualSize: 4 * 2 ** 20, live: false }
    }),
  )
  t.strictSame(
    bitmaps.map(({ name, valid }) => [name, valid]),
    [
      ['b', true],
      ['old', false],
    ],
  )
})

t.test('each fault of a real chain is reported with its image', async (t) => {
  const cases: [string, (top: string, mid: string, base: string) => void, string[]][] = [
    ['none', () => {}, []],
    ['a shorter run', (_top, _mid, base) => qemuImg('bitmap', '--remove', base, 'b'), []],
    [
      'a gap',
      (_top, mid) => qemuImg('bitmap', '--remove', mid, 'b'),
      ["MID: has no bitmap 'b', but BASE below it has one: writes here were not recorded"],
    ],
    [
      'absent in the top',
      (top) => qemuImg('bitmap', '--remove', top, 'b'),
      ["TOP: has no bitmap 'b', but MID below it has one: writes to the top are not recorded"],
    ],
    [
      'disabled in the middle',
      (_top, mid) => qemuImg('bitmap', '--disable', mid, 'b'),
      ["MID: bitmap 'b' is disabled: writes made meanwhile are not recorded"],
    ],
    [
      'in use in the base since a crash',
      (_top, _mid, base) => run('qemu-io', ['-c', 'write 0 64k', '-c', 'abort', base]),
      ["BASE: bitmap 'b' is inconsistent: a process that had the image open did not store it"],
    ],
    [
      'written by a program that keeps no bitmaps',
      (_top, mid) => poke(mid, AUTOCLEAR, peek64(mid, AUTOCLEAR) & ~BITMAPS),
      ["MID: bitmap 'b' is out of date: a program that keeps no bitmaps wrote to the image"],
    ],
    [
      'another granularity',
      (_top, mid) => {
        qemuImg('bitmap', '--remove', mid, 'b')
        qemuImg('bitmap', '--add', '-g', '4k', mid, 'b')
      },
      [],
    ],
    [
      'a layer of version 2',
      (_top, mid) => {
        qemuImg('bitmap', '--remove', mid, 'b')
        qemuImg('amend', '-o', 'compat=0.10', mid)
      },
      [
        "MID: has no bitmap 'b' (it is of version 2), but BASE below it has one: writes here were not recorded",
      ],
    ],
  ]
  for (const [name, change, reasons] of cases) {
    await t.test(name, async (t) => {
      t.testdir()
      const [top, mid, base] = makeChain(t)
      change(top, mid, base)
      const named = reasons.map((text) => {
        return text.replaceAll('TOP', top).replaceAll('MID', mid).replaceAll('BASE', base)
      })
      t.strictSame(await judged(top), [reasons.length === 0, named])
    })
  }
})

t.test('in use by a process that holds the image, and after that was killed', async (t) => {
  t.testdir()
  const [top, mid, base] = makeChain(t)
  const daemon = await startStorageDaemon(t)
  await daemon.open('node', top)
  const { images } = await readBitmapChain(top)
  t.strictSame(
    images.map(({ live }) => live),
    [true, false, false],
  )
  t.strictSame(await judged(top), [true, []])

  const nodes = (await daemon.qmp('query-named-block-nodes')) as NamedBlockNode[]
  const names = [top, mid, base].map((path) => {
    return nodes.find(({ file, drv }) => file === path && drv === 'qcow2')!['node-name']!
  })
  const [health] = validateBitmapChain(factsFromQmp(nodes, names))
  t.match(health, { name: 'b', valid: true, reasons: [] })
  t.strictSame(
    health.images.map(({ image }) => image),
    [top, mid, base],
  )

  await daemon.stop('SIGKILL')
  const why = `${top}: bitmap 'b' is inconsistent: a process that had the image open did not store it`
  t.strictSame(await judged(top), [false, [why]])
})

t.test('raw images, no bitmaps, and what cannot be read are reported', async (t) => {
  const dir = t.testdir()
  qemuImg('create', '-q', '-f', 'raw', join(dir, 'raw'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'raw', '-F', 'raw', join(dir, 'over'))
  t.match(await readBitmapChain(join(dir, 'over')), {
    images: [{ format: 'qcow2' }, { format: 'raw' }],
    bitmaps: [],
  })
  await t.rejects(readBitmapChain(join(dir, 'gone')), { code: 'IO' })
  qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    '/etc/passwd',
    '-F',
    'raw',
    '-u',
    join(dir, 'x'),
    '1M',
  )
  await t.rejects(readBitmapChain(join(dir, 'x')), { code: 'NOT_ALLOWED' })
})
