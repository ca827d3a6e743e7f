/**
 * Makes calls of the library, one after another, and prints for each how long it kept the event loop
 * from turning. A program of its own: what watches tests makes every await slower.
 */
import { join } from 'node:path'
import {
  checkImage,
  commitImage,
  compareImages,
  createSnapshot,
  diffDisks,
  diffToBitmap,
  editBitmap,
  fullBackup,
  imageInfo,
  incrementalBackup,
  listBitmaps,
  mapImage,
  measureImage,
  openSource,
  readBitmap,
  readBitmapChain,
  rebaseImage,
  verifyManifests,
} from '../../lib/index.ts'
import { longestStretch } from '../support/event-loop.ts'
import { type Fragmented, makeFragmented } from '../support/fragmented.ts'

const GIB = 2 ** 30

const [directory] = process.argv.slice(2)
const FRAGMENTED = { size: 4 * GIB, clusterBits: 12, every: 4 }
const SMALL = { ...FRAGMENTED, size: GIB / 2 }
/** Every second sector is other than zero. */
const SECTORS = Buffer.concat(
  Array.from({ length: 4 }, () => Buffer.concat([Buffer.alloc(512, 7), Buffer.alloc(512)])),
)
/** As many runs as there can be. */
const BITMAPS = [
  { name: 'sectors', granularityBits: 9, bits: 0x55 },
  { name: 'other', granularityBits: 10, bits: 0x33 },
]

function image(name: string, disk: Fragmented): string {
  const path = join(directory, `${name}.qcow2`)
  makeFragmented(path, disk)
  return path
}

async function drain(items: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of items);
}

const fragmented = image('fragmented', FRAGMENTED)
const withBitmaps = image('with-bitmaps', { ...SMALL, every: 2, bitmaps: BITMAPS })
const edited = image('edited', { ...SMALL, bitmaps: BITMAPS })
const empty = image('empty', { ...SMALL, every: Number.POSITIVE_INFINITY })
const sectors = image('sectors', { ...SMALL, content: SECTORS })
const many = Array.from({ length: 1000 }, (_, i) => {
  return { name: `bitmap-${i}`, granularityBits: 16, bits: 0x55 }
})
const manyBitmaps = image('many', { size: GIB, clusterBits: 16, every: 8, bitmaps: many })
const target = (name: string) => join(directory, `${name}.made`)

const CALLS: Readonly<Record<string, () => Promise<unknown>>> = {
  check: () => checkImage(fragmented),
  map: () => drain(mapImage(fragmented)),
  measure: () => measureImage(fragmented),
  info: () => imageInfo(fragmented),
  compare: () => compareImages([withBitmaps, empty]),
  'diff at 512 bytes into a bitmap': () =>
    diffToBitmap(empty, sectors, 'differs', { granularity: 512 }),
  'diff at 512 bytes of two disks': () =>
    diffDisks(sectors, withBitmaps, { granularity: 512, output: target('differences') }),
  'adding a bitmap': () => editBitmap(edited, 'new', [{ kind: 'add', granularity: 512 }]),
  'merging bitmaps': () => editBitmap(edited, 'sectors', [{ kind: 'merge', source: 'other' }]),
  'merging into a coarser bitmap': () =>
    editBitmap(edited, 'other', [{ kind: 'merge', source: 'sectors', from: withBitmaps }]),
  'removing a bitmap': () => editBitmap(edited, 'sectors', [{ kind: 'remove' }]),
  'listing bitmaps': () => listBitmaps(manyBitmaps),
  'reading a bitmap': () => readBitmap(withBitmaps, 'sectors', () => {}),
  'a chain with many bitmaps': () => readBitmapChain(manyBitmaps),
  async extents() {
    const source = await openSource(fragmented)
    await drain(source.extents())
    await source.close()
  },
  'a full backup': () => fullBackup(withBitmaps, target('full'), { verify: true }),
  verify: () => drain(verifyManifests([target('full')])),
  'an incremental backup': () =>
    incrementalBackup(withBitmaps, target('incremental'), { bitmap: 'sectors', backing: empty }),
  'a snapshot of an image with many bitmaps': () => createSnapshot(manyBitmaps, target('snapshot')),
  async rebase() {
    const overlay = image('rebased', { ...SMALL, size: GIB / 8, backing: 'fragmented.qcow2' })
    await rebaseImage(overlay, { file: 'with-bitmaps.qcow2', format: 'qcow2' })
  },
  async commit() {
    image('base', { ...SMALL, size: GIB / 4 })
    await commitImage(image('top', { ...SMALL, size: GIB / 4, every: 3, backing: 'base.qcow2' }))
  },
}

const longest: Record<string, number> = {}
for (const [name, call] of Object.entries(CALLS)) longest[name] = await longestStretch(call)
process.stdout.write(JSON.stringify(longest))
