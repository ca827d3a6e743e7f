import { Bits } from '../../edit/bits.ts'
import type { EditedImage } from '../../edit/edited-image.ts'
import { requireRoom, sizeField } from '../../edit/header-steps.ts'
import { type NewBitmap, storeBitmaps } from '../../edit/store-bitmaps.ts'
import { BackupError, throwIfAborted } from '../../errors.ts'
import { bitmapIsTooLarge, bitmapTableSize } from '../../format/qcow2/bitmaps.ts'
import { MAX_BITMAPS } from '../../format/qcow2/constants.ts'
import { type ImageDisk, runSteps } from '../../image/steps.ts'
import { nodeOf } from '../../qemu-img/chain-node.ts'
import { factsOf } from '../../source/bitmaps/facts.ts'
import { type BitmapHealth, validateBitmapChain } from '../../source/bitmaps/health.ts'
import type { ChainImage } from '../../source/source-chain.ts'
import { quoted } from '../../text.ts'
import { addFrom, addToBitmaps, bitmapsOf, bitsOf } from '../changes/add-to-bitmaps.ts'
import { addDifferences } from '../diff/differences.ts'
import type { CommitPlan } from './to-qcow2.ts'

/** The bitmaps of a chain in a commit of the images above a base. */
export interface BitmapPlan {
  /** Of the base, to which those of the images above are added (libvirt's rule). */
  merged: string[]
  /** Not of the base, but valid above it: they go on there. */
  created: { name: string; granularity: number }[]
  /** Recording bitmaps of the base that are not valid from the top: they get the changed ranges. */
  recording: string[]
  /** Bitmaps that end, with the reason. */
  notes: string[]
}

/**
 * Judges the bitmaps along the whole chain, before anything is written.
 * @throws BackupError BAD_BITMAP, UNSUPPORTED if the base cannot hold its new bitmaps
 */
export async function planBitmaps(
  { chain, base, size }: CommitPlan,
  image: EditedImage | undefined,
): Promise<BitmapPlan> {
  // Nobody else writes to any of them: those that are in use are inconsistent.
  const facts = await Promise.all(chain.images.map((one) => factsOf(one, false)))
  const all = validateBitmapChain(facts)
  const ofTop = all.filter(({ images: [top] }) => top.present)
  const notes = ofTop.filter(({ valid }) => !valid).flatMap(({ reasons }) => reasons)
  const valid = ofTop.filter((bitmap) => bitmap.valid)
  const cannot = cannotHold(chain.images[base], image)
  if (!image || cannot) {
    const ends = ({ name }: BitmapHealth) =>
      `${chain.images[base].path}: ${cannot}: bitmap ${quoted(name)} ends here; take a full backup`
    return { merged: [], created: [], recording: [], notes: [...notes, ...valid.map(ends)] }
  }
  const missing = valid.filter(({ images }) => !images[base].present)
  const plan: BitmapPlan = {
    merged: valid.filter(({ images }) => images[base].present).map(({ name }) => name),
    created: missing.map(({ name, images: [top] }) => {
      return { name, granularity: top.granularity as number }
    }),
    recording: [],
    notes,
  }
  const isMerged = new Set(plan.merged)
  for (const bitmap of image.bitmaps) {
    const { name, auto, inUse, tableSize } = bitmap
    const sound = !inUse && tableSize === bitmapTableSize(image.header, bitmap)
    if (auto && sound && !isMerged.has(name)) plan.recording.push(name)
  }
  requireFits(image, plan, size)
  return plan
}

/** Why bitmaps cannot continue in a base. */
function cannotHold({ header }: ChainImage, image?: EditedImage): string | undefined {
  if (!header || !image) return 'is raw and holds no bitmaps'
  if (header.version < 3) return 'is of version 2 and holds no bitmaps'
  return undefined
}

function requireFits(image: EditedImage, { created, merged }: BitmapPlan, size: number): void {
  const { file, header, bitmaps } = image
  const fail = (why: string) => new BackupError('BAD_BITMAP', file.path, why)
  if (bitmaps.length + created.length > MAX_BITMAPS) {
    throw fail(`cannot store ${created.length} more bitmaps: the maximum is ${MAX_BITMAPS}`)
  }
  const granularities = [
    ...created.map(({ granularity }) => Math.log2(granularity)),
    ...bitmaps.filter(({ inUse }) => !inUse).map(({ granularityBits }) => granularityBits),
  ]
  for (const granularityBits of granularities) {
    if (!bitmapIsTooLarge({ ...header, virtualSize: size }, { granularityBits })) continue
    throw fail(`a bitmap of ${2 ** granularityBits} bytes a bit would be too large for the disk`)
  }
  if (created.length + merged.length > 0 || size !== header.virtualSize) {
    requireRoom(image, bitmaps.length + created.length > 0 ? 'room' : undefined)
  }
}

/**
 * Before data is written: marks in every recording bitmap of the base the ranges to be written, so
 * that none of them lacks it at any moment. As many at once as memory is allowed for.
 * @returns the base as it is then
 */
export async function recordFirst(
  opened: EditedImage,
  plan: CommitPlan,
  { merged, recording }: BitmapPlan,
  disk: ImageDisk,
): Promise<EditedImage> {
  const above = await bitmapsOf(plan.chain.images.slice(0, plan.base))
  const isRecording = new Set(recording)
  const { signal } = plan
  return await addToBitmaps(opened, new Set([...merged, ...recording]), {
    disk,
    signal,
    async add(bits, name) {
      begin(opened, plan)
      if (isRecording.has(name)) await addChanged(bits, plan)
      else await addFrom(bits, above, name, signal)
    },
  })
}

/**
 * After the data: adds the missing bits, and grows the bitmaps to the disk's new size.
 */
export async function finishBitmaps(
  image: EditedImage,
  plan: CommitPlan,
  { merged, created, recording }: BitmapPlan,
  disk: ImageDisk,
): Promise<void> {
  const { size } = plan
  const { header } = image
  const grows = size !== header.virtualSize
  if (created.length === 0 && !grows) return
  if (image.bitmaps.length + created.length === 0) {
    // Those that are out of date stay, too: that they are must not be forgotten.
    await runSteps(disk, [[sizeField(size)]])
    return
  }
  const above = await bitmapsOf(plan.chain.images.slice(0, plan.base))
  const isMerged = new Set(merged)
  const isRecording = new Set(recording)
  const bitmaps: NewBitmap[] = []
  for (const stored of image.bitmaps) {
    begin(image, plan)
    // Without new bits one may stay where it is, as long as its table is not too short.
    const adds = isMerged.has(stored.name) || isRecording.has(stored.name)
    const fits = stored.tableSize === bitmapTableSize({ ...header, virtualSize: size }, stored)
    if (stored.inUse || !grows || (fits && !adds)) {
      bitmaps.push({ ...stored, stored })
      continue
    }
    const bits = await bitsOf(image, stored, size, plan.signal)
    if (isMerged.has(stored.name)) await addFrom(bits, above, stored.name, plan.signal)
    if (adds) bits.add(header.virtualSize, size - header.virtualSize)
    bitmaps.push({ ...stored, bits })
  }
  for (const { name, granularity } of created) {
    begin(image, plan)
    const bits = new Bits(size, granularity, header.clusterSize)
    await addFrom(bits, above, name, plan.signal)
    const granularityBits = Math.log2(granularity)
    bitmaps.push({ name, granularityBits, inUse: false, auto: true, bits })
  }
  await storeBitmaps(image, bitmaps, { disk, virtualSize: size, signal: plan.signal })
}

/**
 * Another bitmap begins.
 * @throws BackupError ABORTED
 */
function begin({ file }: EditedImage, { signal, progress }: CommitPlan): void {
  throwIfAborted(signal, file.path)
  progress.bitmap()
}

/**
 * Adds the clusters that the base gains. Fewer than the images above it hold: of a
 * commit that is done again, nothing.
 */
async function addChanged(bits: Bits, { chain, base, signal }: CommitPlan): Promise<void> {
  const side = (images: readonly ChainImage[]) => ({ name: images[0].path, node: nodeOf(images) })
  const sides = [side(chain.images), side(chain.images.slice(base))] as const
  await addDifferences(bits, sides, { signal })
}
