import type { DirtyRun } from '../format/qcow2/bits.ts'
import { withTurns } from '../turns.ts'
import { mark } from './bitmaps/dirty-mappings.ts'
import { type Layer, readLayers, readOpen } from './layer.ts'
import type { Disk, SourceFile } from './source.ts'

/** A chain, the top of which is to be one image over what is below. */
export interface ChainToJoin {
  /** As messages name the disk. */
  name: string
  /** Of the disk, bytes. */
  size: number
  /**
   * The layers, top first, fresh ones for each walk through the guest. The lower ones can be left out where the
   * target never has to fill a cluster up from them: see `endsInside`.
   */
  layers(): readonly Layer[]
  /** How many of them are upper ones. */
  upper: number
  /** What the mappings of all layers point into. */
  files: readonly SourceFile[]
  signal?: AbortSignal
}

/**
 * The upper layers of a chain as a disk: what they hold is dirty, be it data or zero, also where one of them ends
 * and all below reads as zero; what all of them leave to the lower ones is clean.
 */
export function upperLayers({ name, size, layers, upper, files, signal }: ChainToJoin): Disk {
  const mappings = () => withTurns(readLayers(layers()), name, signal)
  return {
    name,
    size,
    stores: files,
    mappings,
    dirtyMappings: () => mark(mappings(), heldBy(layers().slice(0, upper), size)),
  }
}

/** Which ranges layers hold: contiguous runs from 0 to the size. */
async function* heldBy(layers: readonly Layer[], size: number): AsyncGenerator<DirtyRun[]> {
  for await (const batch of readOpen(layers, { start: 0, length: size })) {
    const runs: DirtyRun[] = []
    for (const { kind, start, length } of batch) {
      const dirty = kind !== 'open'
      const last = runs.at(-1)
      if (last?.dirty === dirty) last.length += length
      else runs.push({ start, length, dirty })
    }
    yield runs
  }
}

/** Borders that an image has, bytes. */
export interface Borders {
  /** Of its disk. */
  size: number
  /** The least that is allocated at once. */
  unit: number
}

/**
 * Whether something can begin or end inside a cluster of the target, of which the rest is in the lower layers.
 * @param images the upper ones, top first
 * @param below size of the disk of the lower ones
 */
export function endsInside(
  clusterSize: number,
  images: readonly Borders[],
  below: number,
): boolean {
  const [{ size }] = images
  const isInside = (end: number) => end < size && end % clusterSize !== 0
  return (
    isInside(below) || images.some(({ size: end, unit }) => isInside(end) || unit < clusterSize)
  )
}
