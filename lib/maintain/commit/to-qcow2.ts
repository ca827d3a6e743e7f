import type { EditedImage } from '../../edit/edited-image.ts'
import { withRoomFor } from '../../edit/l1.ts'
import type { Chain } from '../../source/source-chain.ts'
import type { ChangeDisk } from '../changes/batch.ts'
import { type ByteCounter, changesOf } from '../changes/changes.ts'
import { writeChanges } from '../changes/write-changes.ts'
import type { CommitProgress } from './commit-progress.ts'
import { heldMappings } from './held-mappings.ts'

/** The image of a chain that is committed to, and its new size. */
export interface CommitPlan {
  /** The base by its index in the chain. */
  chain: Chain
  base: number
  /** Of the disk when all is committed, bytes. */
  size: number
  /** Counts the bytes committed. */
  counter: ByteCounter
  signal?: AbortSignal
  progress: CommitProgress
}

/**
 * Commits the data of the images above a base into it. Its size does not change.
 * @returns the base as it is then
 * @throws BackupError: the base is sound, and it can be done again
 */
export async function commitToQcow2(
  opened: EditedImage,
  { chain, base, size, counter, signal, progress }: CommitPlan,
  disk: ChangeDisk,
): Promise<EditedImage> {
  const { clusterSize, virtualSize } = opened.header
  const lower = chain.layers.slice(base + 1)
  const image = await withRoomFor(opened, size, disk)
  const mappings = counter.count(heldMappings(chain.layers.slice(0, base), virtualSize))
  return await writeChanges(image, changesOf(mappings, clusterSize, size), disk, {
    ...{ files: chain.files, lower, below: lower[0]?.size ?? 0, size, signal },
    onSettled: (position) => progress.settled(position),
  })
}
