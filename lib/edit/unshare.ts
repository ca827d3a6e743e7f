import { badImage, throwIfAborted } from '../errors.ts'
import { OVER_AND_OVER } from '../format/qcow2/work.ts'
import type { ImageDisk } from '../image/steps.ts'
import { log } from '../log.ts'
import { Allocator } from './allocator.ts'
import { runEdit, writeUnreferenced } from './edit.ts'
import { type EditedImage, reopened } from './edited-image.ts'
import { L1Table } from './l1.ts'
import { L2Tables } from './l2.ts'
import type { Lost } from './release.ts'

/**
 * Bytes of tables that any image may have copied, and how many for each byte of it. Only a table of
 * zeroes may be shared by all of a disk; other tables shared that often are not genuine.
 */
const BASE_COPIED = 16 * 2 ** 20
const COPIED_PER_BYTE = 16
/**
 * Tables of zeroes that are made, and their bytes: those of a disk of 2 TiB with clusters of 64 KiB. A
 * file of some KiB may share one for any size of disk, and is not to grow by gigabytes for each edit.
 */
const MAX_ZERO_TABLES = 16384
const MAX_ZERO_BYTES = 256 * 2 ** 20
/** Bytes of tables that are held in memory until they are written. */
const MAX_TABLE_BYTES = 32 * 2 ** 20

/**
 * Gives every L1 entry of the active table an L2 table of its own. Increments let entries share a
 * table of zeroes, as internal snapshots do; but when the writes of a VM leave one user of such a
 * table, QEMU does not set its COPIED flag, and its check reports corruption. So an image that is
 * edited, which a VM may run on, shares none; tables that internal snapshots use too stay theirs.
 * Where that would take too many tables of zeroes, they stay shared, as they were.
 * @returns the image as it is then; the same if there was nothing to do
 * @throws BackupError: the image is sound, and it can be done again
 */
export async function unshareTables(
  image: EditedImage,
  disk: ImageDisk,
  signal?: AbortSignal,
): Promise<EditedImage> {
  const l1 = await L1Table.read(image)
  const entries = await entriesToUnshare(image, l1, signal)
  // Without a backing file, unallocated clusters are zero, too.
  const zeroesAreNeeded = image.header.backingFile !== undefined
  let now = image
  for (let done = 0; done < entries.length; ) {
    const lost: Lost = new Map()
    const allocator = new Allocator(now.file, now.header, now.stored)
    const tables = new L2Tables(now, l1, allocator, lost)
    for (; done < entries.length && tables.bytes < MAX_TABLE_BYTES; done++) {
      throwIfAborted(signal, now.file.path)
      const index = entries[done]
      if (zeroesAreNeeded || !(await tables.isZero(index))) await tables.get(index)
      else await tables.remove(index)
    }
    const before = now
    const { fresh: copies, changed } = tables.finish()
    await runEdit(before, disk, {
      allocator,
      lost,
      prepare: (fresh) => writeUnreferenced(before, disk, [...fresh, ...copies], signal),
      naming: () => [[...changed, ...l1.changes()]],
    })
    now = await reopened(before)
  }
  return now
}

/**
 * Which entries get tables of their own, or none: table by table, so that each is read once.
 * @throws BackupError BAD_IMAGE if a table is shared far more often than there is a reason for; IO
 */
async function entriesToUnshare(
  image: EditedImage,
  l1: L1Table,
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const { file, header } = image
  const { clusterSize } = header
  const zero: number[][] = []
  const copied: number[][] = []
  const tables = new L2Tables(image, l1, new Allocator(file, header, image.stored), new Map())
  for (const users of l1.shared()) {
    throwIfAborted(signal, file.path)
    const group = (await tables.isZero(users[0])) ? zero : copied
    group.push(users)
  }
  if (copied.flat().length * clusterSize > BASE_COPIED + file.size * COPIED_PER_BYTE) {
    throw badImage(file.path, OVER_AND_OVER)
  }
  const zeroes = zero.flat()
  const tooMany = zeroes.length > MAX_ZERO_TABLES || zeroes.length * clusterSize > MAX_ZERO_BYTES
  if (header.backingFile === undefined || !tooMany) return [...zeroes, ...copied.flat()]
  log('edit', () => `${file.path}: ${zeroes.length} L1 entries go on sharing tables of zeroes`)
  return copied.flat()
}
