import { Bits } from '../../edit/bits.ts'
import type { EditedImage } from '../../edit/edited-image.ts'
import { BackupError, unsupported } from '../../errors.ts'
import { type ChainImage, filesOf } from '../../image/image-chain.ts'
import type { ControlOptions } from '../../options.ts'
import { positions } from '../../progress.ts'
import { nodeOf } from '../../qemu-img/chain-node.ts'
import { type Layer, readLayers } from '../../source/layer.ts'
import type { Mapping } from '../../source/source.ts'
import { layersOf } from '../../source/source-chain.ts'
import { Turns } from '../../turns.ts'
import type { ChangeDisk } from '../changes/batch.ts'
import { bitmapClusters, requireFreeClusters } from '../changes/capacity.ts'
import { type ByteCounter, changesOf } from '../changes/changes.ts'
import { writeChanges } from '../changes/write-changes.ts'
import { addDifferences } from '../diff/differences.ts'
import { keepBitmaps, planBitmaps } from './rebase-bitmaps.ts'
import type { RebaseProgress } from './rebase-progress.ts'

/** An image, first over what it builds on, then over what it is to build on. */
export interface Chains {
  before: readonly ChainImage[]
  after: readonly ChainImage[]
}

/** What a rebase goes on with. */
export interface Work extends ControlOptions {
  disk: ChangeDisk
  /** Counts what is copied. */
  counter: ByteCounter
  progress: RebaseProgress
}

/** Bytes of bits that are one part of them in memory. */
const BITS_PART = 4096

/**
 * Copies into an image what the guest would see otherwise over its new backing files, so that it sees
 * the same over both of them; and lets its bitmaps have what those of images have that drop out. It
 * goes on building on what it did, whatever happens.
 * @throws BackupError BAD_BITMAP, BAD_TARGET, UNSUPPORTED: nothing is written then; BAD_IMAGE, IO, ABORTED
 */
export async function keepContent(
  opened: EditedImage,
  chains: Chains,
  { disk, counter, progress, signal, onProgress }: Work,
): Promise<EditedImage> {
  requireNoSnapshots(opened)
  const { before, after } = chains
  const bitmaps = await planBitmaps(before, after)
  const bits = await findDifferences(chains, { signal, onProgress })
  const { virtualSize: size, clusterSize } = opened.header
  const { layers } = layersOf(before)
  const below = after[1]?.size ?? 0
  const turns = new Turns(opened.file.path, signal)
  const differing = await bits.dirtyBytes(turns)
  if (differing > 0 && opened.header.externalDataFile) {
    throw unsupported(
      opened.file.path,
      'has its data in another file, into which nothing is copied',
    )
  }
  const changesFrom = (mappings: AsyncIterable<readonly Mapping[]>) =>
    changesOf(mappings, clusterSize, size)
  if (opened.file.blockDevice) {
    const kept = { changing: [...bitmaps.keys()], created: [] }
    const planned = { changes: changesFrom(mappingsOf(bits, layers, turns)), below, size, signal }
    await requireFreeClusters(opened, planned, bitmapClusters(opened, size, kept))
  }
  const image = await keepBitmaps(opened, before, bitmaps, { disk, signal })
  if (differing === 0) return image
  progress.begin(differing)
  const changes = changesFrom(counter.count(mappingsOf(bits, layers, turns)))
  return await writeChanges(image, changes, disk, {
    ...{ files: filesOf(before), lower: layers.slice(1), below, size, signal },
    onSettled: () => progress.settled(),
  })
}

/** Internal snapshots build on the same file, and would not stay what they are. */
function requireNoSnapshots({ file, header: { nbSnapshots } }: EditedImage): void {
  if (nbSnapshots === 0) return
  const why = `has ${nbSnapshots} internal snapshots, which would change; only its name can be (-u)`
  throw unsupported(file.path, why)
}

/** The clusters of the image in which the guest would see something else. */
async function findDifferences(
  { before, after }: Chains,
  { signal, onProgress }: ControlOptions,
): Promise<Bits> {
  const [{ path: name, size, header }] = before
  const bits = new Bits(size, header?.clusterSize as number, BITS_PART)
  const tell = positions('compare', size, onProgress)
  const sides = [
    { name, node: nodeOf(before) },
    { name, node: nodeOf(after) },
  ] as const
  const [unreadable] = await addDifferences(bits, sides, {
    signal,
    onProgress: tell && ((position, all) => tell(position, position === all)),
  })
  if (!unreadable) return bits
  const { start, side, why } = unreadable
  const chain = side === 0 ? 'the backing file' : 'the new backing file'
  throw new BackupError('IO', name, `${chain} cannot be read at guest offset ${start}: ${why}`)
}

/** Where the bytes of dirty granules are. */
async function* mappingsOf(
  bits: Bits,
  layers: readonly Layer[],
  turns: Turns,
): AsyncGenerator<readonly Mapping[]> {
  for (const runs of bits.runs()) {
    for (const { start, length, dirty } of runs) {
      const pause = turns.step()
      if (pause) await pause
      if (dirty) yield* readLayers(layers, { start, length })
    }
  }
}
