import { type CopyOptions, commonUnit, patchFile } from '../../copy/patch.ts'
import { type EditedImage, reopened } from '../../edit/edited-image.ts'
import { L1Table, withRoomFor } from '../../edit/l1.ts'
import { throwIfAborted } from '../../errors.ts'
import { Qcow2Image } from '../../format/qcow2/qcow2-image.ts'
import type { OpenFile } from '../../image/file.ts'
import { diskOf } from '../../image/steps.ts'
import { native } from '../../native.ts'
import type { Layer } from '../../source/layer.ts'
import { qcow2Layer } from '../../source/qcow2-layer.ts'
import type { SourceFile } from '../../source/source.ts'
import type { Chain } from '../../source/source-chain.ts'
import { roundUp } from '../../units.ts'
import { Batch, type CommitBase, type CommitDisk } from './batch.ts'
import { type ByteCounter, type Change, changesOf, heldMappings } from './changes.ts'
import type { CommitProgress } from './commit-progress.ts'

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
  disk: CommitDisk,
): Promise<EditedImage> {
  const overlays = chain.layers.slice(0, base)
  const lower = chain.layers.slice(base + 1)
  const { clusterSize, virtualSize } = opened.header
  let image = await withRoomFor(opened, size, disk)
  const l1 = await L1Table.read(image)
  const below = lower[0]?.size ?? 0
  const newBatch = (searchFrom: number) => {
    const layers = [layerOf(image, chain.files), ...lower]
    return new Batch({ image, l1, disk, layers, below, size, searchFrom } satisfies CommitBase)
  }
  let batch = newBatch(0)
  const mappings = counter.count(heldMappings(overlays, virtualSize))
  for await (const changes of changesOf(mappings, clusterSize, size)) {
    for (const change of changes) {
      for (let left: Change | undefined = change; left; ) {
        left = await batch.add(left)
        if (!batch.isFull) continue
        await batch.write()
        progress.settled(left?.start ?? change.start)
        throwIfAborted(signal, opened.file.path)
        image = await reopened(image)
        batch = newBatch(batch.searchFrom)
      }
    }
  }
  await batch.write()
  progress.settled(size)
  throwIfAborted(signal, opened.file.path)
  return await reopened(image)
}

/** The base's own content now. */
function layerOf({ file, header }: EditedImage, files: readonly OpenFile[]): Layer {
  const index = files.findIndex(({ identity }) => identity === file.identity)
  return qcow2Layer(new Qcow2Image(file, header, file), index)
}

/** @param files the stores read from */
export function commitDisk(
  { file, header }: EditedImage,
  files: readonly SourceFile[],
  options?: CopyOptions,
): CommitDisk {
  const disk = diskOf(file.handle)
  return {
    ...disk,
    async copy(mappings, end) {
      if (mappings.length === 0) return await disk.sync()
      const now = file.blockDevice ? file.size : (await file.handle.stat()).size
      const size = file.blockDevice ? now : roundUp(Math.max(now, end), header.clusterSize)
      const unit = commonUnit([size, ...mappings.flatMap(({ start, length }) => [start, length])])
      async function* all() {
        yield mappings
      }
      await patchFile(files, file, { mappings: all(), size, unit }, options)
    },
    async deallocate(areas) {
      if (areas.length === 0 || file.blockDevice) return
      const pairs = new Float64Array(areas.flatMap(({ start, length }) => [start, length]))
      await native().punchFile(file.handle.fd, pairs)
    },
  }
}
