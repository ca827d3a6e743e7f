import { throwIfAborted } from '../errors.ts'
import { badImage } from '../format/qcow2/fields.ts'
import { OVER_AND_OVER } from '../format/qcow2/work.ts'
import type { ImageDisk } from '../image/steps.ts'
import { Allocator } from './allocator.ts'
import { runEdit, writeUnreferenced } from './edit.ts'
import { type EditedImage, reopened } from './edited-image.ts'
import { L1Table } from './l1.ts'
import { L2Tables } from './l2.ts'
import type { Lost } from './release.ts'

/**
 * Bytes of tables that any image may have copied, and how many for each byte of it. Only a table of
 * zeroes may be shared by all of a disk: what shares others that often is made up.
 */
const LEAST_COPIED = 16 * 2 ** 20
const COPIED_PER_BYTE = 16
/** Bytes of tables that are held in memory until they are written. */
const MAX_TABLE_BYTES = 32 * 2 ** 20

/**
 * Gives every L1 entry of the active table an L2 table of its own. Increments let entries share a
 * table of zeroes, as internal snapshots do; but when the writes of a VM leave one user of such a
 * table, QEMU does not set its COPIED flag, and its check reports corruption. So an image that is
 * edited, which a VM may run on, shares none; tables that internal snapshots use too stay theirs.
 * @returns the image as it is then; the same if there was nothing to do
 * @throws BackupError: the image is sound, and it can be done again
 */
export async function unshareTables(
  image: EditedImage,
  disk: ImageDisk,
  signal?: AbortSignal,
): Promise<EditedImage> {
  const l1 = await L1Table.read(image)
  const shared = l1.shared()
  if (shared.length === 0) return image
  // Without a backing file what is not allocated is zero, too.
  const zeroesAreNeeded = image.header.backingFile !== undefined
  const { file, header } = image
  const most = LEAST_COPIED + file.size * COPIED_PER_BYTE
  let copied = 0
  let now = image
  for (let done = 0; done < shared.length; ) {
    const lost: Lost = new Map()
    const allocator = new Allocator(now.file, now.header, now.stored)
    const tables = new L2Tables(now, l1, allocator, lost)
    for (; done < shared.length && tables.bytes < MAX_TABLE_BYTES; done++) {
      throwIfAborted(signal, file.path)
      const index = shared[done]
      const zero = await tables.isZero(index)
      if (!zero) copied += header.clusterSize
      if (copied > most) throw badImage(file.path, OVER_AND_OVER)
      if (zeroesAreNeeded || !zero) await tables.get(index)
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
