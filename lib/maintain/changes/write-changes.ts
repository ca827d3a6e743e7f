import { type CopyOptions, commonUnit, patchFile } from '../../copy/patch.ts'
import { type EditedImage, reopened } from '../../edit/edited-image.ts'
import { L1Table } from '../../edit/l1.ts'
import { throwIfAborted } from '../../errors.ts'
import { Qcow2Image } from '../../format/qcow2/qcow2-image.ts'
import type { OpenFile } from '../../image/file.ts'
import { diskOf } from '../../image/steps.ts'
import { native } from '../../native.ts'
import type { Layer } from '../../source/layer.ts'
import { qcow2Layer } from '../../source/qcow2-layer.ts'
import type { Mapping, SourceFile } from '../../source/source.ts'
import { Turns } from '../../turns.ts'
import { roundUp } from '../../units.ts'
import { Batch, type ChangeDisk } from './batch.ts'
import type { Change } from './changes.ts'

/** Mappings that are handed over for a copy at a time. */
const PART = 4096

/** An image that is changed, and what it builds on. */
export interface ChangedDisk {
  /** What mappings point into, the image itself among them. */
  files: readonly OpenFile[]
  /** The images that it builds on while it is changed. */
  lower: readonly Layer[]
  /** Guest bytes from which on nothing below it is seen, so that what it lacks is zero. */
  below: number
  /** Of the disk when all is written, bytes. */
  size: number
  signal?: AbortSignal
  /** Guest bytes before `position` are durable. */
  onSettled: (position: number) => void
}

/**
 * Brings changes into an image, batch by batch, each of which is durable before the next begins.
 * REQUIRES: its L1 table is large enough
 * @returns the image as it is then
 * @throws BackupError: the image is sound, and it can be done again
 */
export async function writeChanges(
  opened: EditedImage,
  changes: AsyncIterable<readonly Change[]>,
  disk: ChangeDisk,
  { files, lower, below, size, signal, onSettled }: ChangedDisk,
): Promise<EditedImage> {
  let image = opened
  const l1 = await L1Table.read(image)
  const newBatch = (searchFrom: number) => {
    const layers = [layerOf(image, files), ...lower]
    return new Batch({ image, l1, disk, layers, below, size, searchFrom })
  }
  let batch = newBatch(0)
  const turns = new Turns(opened.file.path, signal)
  for await (const some of changes) {
    for (const change of some) {
      const pause = turns.step()
      if (pause) await pause
      for (let left: Change | undefined = change; left; ) {
        left = await batch.add(left)
        if (!batch.isFull) continue
        await batch.write()
        onSettled(left?.start ?? change.start)
        throwIfAborted(signal, opened.file.path)
        image = await reopened(image)
        batch = newBatch(batch.searchFrom)
      }
    }
  }
  await batch.write()
  onSettled(size)
  throwIfAborted(signal, opened.file.path)
  return await reopened(image)
}

/** The image's own content now. */
function layerOf({ file, header }: EditedImage, files: readonly OpenFile[]): Layer {
  const index = files.findIndex(({ identity }) => identity === file.identity)
  return qcow2Layer(new Qcow2Image(file, header, file), index)
}

function* bordersOf(mappings: readonly Mapping[]): Generator<number> {
  for (const { start, length } of mappings) {
    yield start
    yield length
  }
}

/** So that other work goes on between two of them. */
async function* inParts(mappings: readonly Mapping[]): AsyncGenerator<readonly Mapping[]> {
  for (let at = 0; at < mappings.length; at += PART) yield mappings.slice(at, at + PART)
}

/** @param files the stores read from */
export function changeDisk(
  { file, header }: EditedImage,
  files: readonly SourceFile[],
  options?: CopyOptions,
): ChangeDisk {
  const disk = diskOf(file.handle)
  return {
    ...disk,
    async copy(mappings, end) {
      if (mappings.length === 0) return await disk.sync()
      const now = file.blockDevice ? file.size : (await file.handle.stat()).size
      const size = file.blockDevice ? now : roundUp(Math.max(now, end), header.clusterSize)
      const unit = Math.min(commonUnit([size]), commonUnit(bordersOf(mappings)))
      await patchFile(files, file, { mappings: inParts(mappings), size, unit }, options)
    },
    async deallocate(areas) {
      if (areas.length === 0 || file.blockDevice) return
      const pairs = new Float64Array(areas.flatMap(({ start, length }) => [start, length]))
      await native().punchFile(file.handle.fd, pairs)
    },
  }
}
