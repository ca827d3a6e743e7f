import { throwIfAborted } from '../errors.ts'
import { FIELD } from '../format/qcow2/constants.ts'
import { encodeRefcountTableFields } from '../format/qcow2/encode.ts'
import type { OpenFile } from '../image/file.ts'
import { type ImageDisk, runSteps, type Write } from '../image/steps.ts'
import { roundUp } from '../units.ts'
import type { Allocator, MovedTable } from './allocator.ts'
import type { EditedImage } from './edited-image.ts'
import { type Lost, lose, release } from './release.ts'

/** An edit for which all clusters that it takes have been allocated. */
export interface PlannedEdit {
  allocator: Allocator
  /** References that clusters lose by it. */
  lost: Lost
  /** Writes data that nothing refers to yet, including `fresh`, and syncs it. */
  prepare(fresh: readonly Write[]): Promise<void>
  /**
   * The steps after which the image refers to it, in order.
   * @param table where the refcount table is by then, if it was moved
   */
  naming(table?: MovedTable): Write[][]
}

/**
 * Edits an image: new data is written to free clusters, counted as in use, then referred to, and
 * the old data is freed last. Each step is durable before the next begins, so an edit that
 * ends anywhere leaves a sound image; it may have leaked clusters. The file ends with a whole cluster.
 * @returns the clusters that are free by it, in order
 */
export async function runEdit(
  { file, header, stored }: EditedImage,
  disk: ImageDisk,
  { allocator, lost, prepare, naming }: PlannedEdit,
): Promise<number[]> {
  const { refcountTableOffset, refcountTableClusters, clusterSize } = header
  const { fresh, entries, table, blocks } = await allocator.finish()
  await prepare([...fresh, ...padding(file, clusterSize)])
  const placed = table && encodeRefcountTableFields(table.offset, table.clusters)
  await runSteps(disk, [
    placed ? [{ offset: FIELD.refcountTableOffset, bytes: placed }] : entries,
    blocks,
    ...naming(table),
  ])
  if (table) lose(lost, refcountTableOffset, refcountTableClusters * clusterSize, clusterSize)
  const { blocks: released, free } = await release(stored, lost, file.path)
  await runSteps(disk, [released])
  return free
}

/**
 * Writes data that nothing refers to yet, in one step. If that fails the file has its old length.
 * @param signal ends it, and so the edit: the last moment at which that does no harm
 * @throws errors of the disk; BackupError ABORTED
 */
export async function writeUnreferenced(
  { file }: EditedImage,
  disk: ImageDisk,
  writes: readonly Write[],
  signal?: AbortSignal,
): Promise<void> {
  const { path } = file
  try {
    const stoppable: ImageDisk = {
      async write(write) {
        throwIfAborted(signal, path)
        await disk.write(write)
      },
      sync: () => disk.sync(),
    }
    await runSteps(stoppable, [writes])
    throwIfAborted(signal, path)
  } catch (error) {
    if (!file.blockDevice) await file.handle.truncate(file.size).catch(() => {})
    throw error
  }
}

/**
 * Zeroes up to the end of the file's last cluster, as the bytes past the end of a file read anyway:
 * storage that keeps whole sectors would cut off the rest of one.
 */
export function padding({ size, blockDevice }: OpenFile, clusterSize: number): Write[] {
  const end = roundUp(size, clusterSize)
  return blockDevice || end === size ? [] : [{ offset: size, bytes: Buffer.alloc(end - size) }]
}
