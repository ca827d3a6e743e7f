import type { Disk } from '../source/source.ts'
import { alignDirty } from './align.ts'
import { FRESH, OVERLAY } from './policy.ts'
import { packRows } from './rows.ts'

/** The plan of a copy into a target without a backing file: rows for the whole disk, in batches. */
export async function* planFresh(source: Disk): AsyncGenerator<Float64Array> {
  for await (const mappings of source.mappings()) yield packRows(mappings, FRESH)
}

/**
 * The plan of a new qcow2 image: of the whole disk, or over a backing file of what is dirty.
 * REQUIRES: with a backing file, the source was opened with a bitmap.
 * @param backing the image's backing file, its virtual size in bytes
 */
export function planImage(
  source: Disk,
  { clusterBits, backing }: { clusterBits: number; backing?: { size: number } },
): AsyncGenerator<Float64Array> {
  return backing ? planOverlay(source, 2 ** clusterBits, backing.size) : planFresh(source)
}

/**
 * The plan of an incremental copy into a target over the previous backup.
 * REQUIRES: the source was opened with a bitmap.
 * @param clusterSize of the target, bytes
 * @param backingSize virtual size of the previous backup, bytes
 */
export async function* planOverlay(
  source: Disk,
  clusterSize: number,
  backingSize: number,
): AsyncGenerator<Float64Array> {
  const mappings = alignDirty(source.dirtyMappings(), clusterSize, backingSize)
  for await (const batch of mappings) yield packRows(batch, OVERLAY)
}
