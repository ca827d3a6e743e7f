/** Images of at most 1 MiB whose counts, sizes and offsets are made up at random. */

import type { Files } from './hostile-images.ts'
import {
  bitmapEntry,
  entries,
  type HeaderField,
  ImageBuilder,
  snapshotEntry,
} from './image-builder.ts'

type Random = (below: number) => number

const FIELDS: readonly HeaderField[] = [
  'size',
  'l1Size',
  'l1TableOffset',
  'refcountTableOffset',
  'refcountTableClusters',
  'nbSnapshots',
  'snapshotsOffset',
  'refcountOrder',
  'headerLength',
  'clusterBits',
]

/** A number that means trouble: near a power of two, of any magnitude. */
function trouble(random: Random, most = 63): number {
  const power = 2 ** random(most)
  return Math.max(
    0,
    [power, power - 1, power + 1, Math.floor(power * 1.5), random(4096)][random(5)],
  )
}

function aligned(random: Random, clusterSize: number): number {
  const offset = random(4) === 0 ? trouble(random, 56) : random(2048) * 512
  return Math.floor(offset / clusterSize) * clusterSize
}

/** A chain of one to some dozens of images, the same for the same numbers. */
export function lyingImages(random: Random): Files {
  const count = random(4) === 0 ? 1 + random(60) : 1
  const files: Files = {}
  const room = Math.floor(2 ** 20 / count)
  for (let i = 0; i < count; i++) {
    const name = (n: number) => (n === 0 ? 'disk.qcow2' : `below${n}.qcow2`)
    const image = lyingImage(random, Math.floor(room / 4))
    if (i < count - 1) image.backing(name(i + 1))
    files[name(i)] = image.finish().subarray(0, room)
  }
  return files
}

/** @param room bytes that a table may take */
function lyingImage(random: Random, room: number): ImageBuilder {
  const bits = 9 + random(random(2) === 0 ? 4 : 8)
  const clusterSize = 2 ** bits
  const image = new ImageBuilder(bits, 512 * trouble(random, 30), 4 + random(2))
  const many = () => 1 + Math.floor((random(1000) / 1000) ** 3 * (room / 64))
  const fill = <T>(make: (i: number) => T) => Array.from({ length: many() }, (_, i) => make(i))

  const entry = () => BigInt([0, 1, aligned(random, clusterSize), trouble(random, 62)][random(4)])
  const same = entry()
  const table = image.put(
    entries(
      new Array(Math.floor(Math.min(clusterSize, room) / 8)).fill(0).map(() => {
        return random(8) === 0 ? entry() : same
      }),
    ),
  )
  image.l1(fill(() => (random(4) === 0 ? aligned(random, clusterSize) : table)))
  if (random(2) === 0) {
    const directory = fill((i) => {
      const offset = random(4) === 0 ? aligned(random, clusterSize) : table
      return bitmapEntry(
        i === 0 ? 'b' : `b${i}`,
        offset,
        1 + trouble(random, 20),
        9 + random(23),
        random(4),
      )
    })
    image.bitmaps(directory)
  }
  if (random(2) === 0) {
    image.snapshots(
      fill((i) => {
        const offset = random(4) === 0 ? aligned(random, clusterSize) : table
        return snapshotEntry(String(i), offset, Math.min(trouble(random, 33), 0xffffffff), {
          extraSize: random(8) === 0 ? Math.min(trouble(random, 32), 0xffffffff) : 16,
        })
      }),
    )
  }
  if (random(4) === 0) {
    const luks = Buffer.alloc(16)
    luks.writeBigUInt64BE(BigInt(aligned(random, clusterSize)))
    luks.writeBigUInt64BE(BigInt(Math.floor(trouble(random))), 8)
    image.extension(0x0537be77, luks)
  }
  for (let lies = random(3); lies > 0; lies--) {
    const field = FIELDS[random(FIELDS.length)]
    const wide = /Offset|^size/.test(field)
    const offset = /Offset/.test(field) ? aligned(random, clusterSize) : Math.floor(trouble(random))
    image.set(field, wide ? BigInt(offset) : Math.floor(trouble(random, 32)) % 2 ** 32)
  }
  return image
}
