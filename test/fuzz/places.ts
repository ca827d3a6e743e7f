/** Where in an image what a decoder reads lies: damage is to fall there, not into guest data. */

/** Numbers of one width, one after the other. */
export interface Place {
  /** Bytes. */
  at: number
  /** Bytes, a multiple of `width`. */
  length: number
  /** Bytes of a number. */
  width: 1 | 2 | 4 | 8
}

/** Of each kind of table so many are named, so that those of another kind are hit as often. */
const MOST = 8

/** Bits of an entry, or of a field, that are the offset of a cluster. */
const OFFSET = 0x00fffffffffffe00n

/**
 * The places of a sound image: its header, field by field, its tables, its snapshots and bitmaps.
 * Of anything else the whole.
 */
export function placesOf(image: Buffer): Place[] {
  const whole: Place = { at: 0, length: Math.max(1, image.length), width: 1 }
  if (image.length < 512 || image.readUInt32BE(0) !== 0x514649fb) return [whole]
  const u32 = (at: number) => image.readUInt32BE(at)
  const offset = (at: number) => Number(image.readBigUInt64BE(at) & OFFSET)
  const clusterSize = 2 ** u32(20)
  const cluster = (at: number): Place => ({ at, length: clusterSize, width: 8 })
  const l1: Place = { at: offset(40), length: u32(36) * 8, width: 8 }
  const refcountTable = cluster(offset(48))
  const places = [
    ...headerFields(),
    { at: 72, length: 184, width: 4 } as const,
    ...[l1, refcountTable],
    ...named(image, l1).map(cluster),
    ...named(image, refcountTable).map((at): Place => ({ at, length: clusterSize, width: 2 })),
    ...extensionPlaces(image, clusterSize),
    ...(u32(60) > 0 ? [{ at: offset(64), length: 256, width: 4 } as const] : []),
  ]
  return [...places.filter(({ at, length }) => length > 0 && at < image.length), whole]
}

/** The fields of the header, each as often as all of a table. */
function headerFields(): Place[] {
  const wide = [8, 24, 40, 48, 64, 72, 80, 88]
  const narrow = [4, 16, 20, 32, 36, 56, 60, 96, 100, 104]
  return [
    ...wide.map((at): Place => ({ at, length: 8, width: 8 })),
    ...narrow.map((at): Place => ({ at, length: 4, width: 4 })),
  ]
}

/** What the entries of a table name. */
function named(image: Buffer, { at, length }: Place): number[] {
  const offsets: number[] = []
  for (let i = at; i < Math.min(at + length, image.length - 7) && offsets.length < MOST; i += 8) {
    const offset = Number(image.readBigUInt64BE(i) & OFFSET)
    if (offset !== 0) offsets.push(offset)
  }
  return offsets
}

/** Header extensions, and of bitmaps the directory and the table of the first. */
function extensionPlaces(image: Buffer, clusterSize: number): Place[] {
  const places: Place[] = []
  let at = image.readUInt32BE(4) === 3 ? image.readUInt32BE(100) : 72
  while (at + 8 <= Math.min(clusterSize, image.length) && image.readUInt32BE(at) !== 0) {
    const length = 8 + Math.ceil(image.readUInt32BE(at + 4) / 8) * 8
    places.push({ at, length: 8, width: 4 }, { at: at + 8, length: length - 8, width: 8 })
    if (image.readUInt32BE(at) === 0x23852875) {
      const directory = Number(image.readBigUInt64BE(at + 24))
      const table = Number(image.readBigUInt64BE(directory) & OFFSET)
      places.push({ at: directory, length: 64, width: 4 })
      places.push({ at: table, length: clusterSize, width: 8 })
    }
    at += length
  }
  return places
}
