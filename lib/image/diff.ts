import { BackupError, usageError } from '../errors.ts'
import type { Area } from '../extents/areas.ts'
import { unsupported } from '../format/qcow2/fields.ts'
import { type ChainImage, closeChain, openChain } from '../qemu-img/chain.ts'
import { lookAtSteps } from '../qemu-img/compare/compare.ts'
import { type ReadStep, readStep } from '../qemu-img/compare/examine.ts'
import { planComparison, type Side } from '../qemu-img/compare/plan.ts'
import type { ContentReader } from '../qemu-img/compare/read.ts'
import { QemuImgError } from '../qemu-img/messages.ts'
import { nodeOf } from '../qemu-img/status/chain.ts'
import { isNbdUri } from '../source/nbd-uri.ts'
import { type AddedBitmap, addBitmap } from './bitmaps.ts'
import type { Bits } from './edit/bits.ts'

export interface DiffOptions {
  /** Bytes that one bit stands for. Default: the cluster size, from 4 to 64 KiB. */
  granularity?: number
  /** Let it record what is written from now on. Default: no. */
  enable?: boolean
  /** The formats. Default: recognised by their magic; the image is qcow2. */
  baselineFormat?: 'raw' | 'qcow2'
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
  signal?: AbortSignal
  /** Called now and then with guest bytes compared so far, and all. */
  onProgress?: (position: number, size: number) => void
}

/** Guest bytes that could not be read; they count as different. */
export interface UnreadableArea extends Area {
  /** Of the image (0) or of the baseline (1). */
  side: Side
  why: string
}

/** What a comparison made. */
export interface DiffResult {
  image: string
  bitmap: string
  /** Bytes. */
  granularity: number
  /** Guest bytes in the granules that differ. */
  dirtyBytes: number
  unreadable: UnreadableArea[]
}

/** Bytes between two calls of onProgress. */
const PROGRESS_BYTES = 64 * 2 ** 20

/**
 * Adds a bitmap to an image that has exactly those granules dirty in which the guest sees something
 * else than in a known state of the disk, such as the last backup: for a bitmap that was lost or
 * never made. Bytes that one of the two lacks, being smaller, are zero. What both have as zero, and
 * what is the same place of the same file, is not read. Nobody else may write to the image meanwhile.
 * @param image path of a qcow2 image of version 3
 * @param baseline path of a raw or qcow2 image
 * @throws BackupError BAD_BITMAP if the bitmap is there already or cannot be; BAD_IMAGE, UNSUPPORTED,
 * NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED: the image is as it was then
 */
export async function diffToBitmap(
  image: string,
  baseline: string,
  bitmap: string,
  options: DiffOptions = {},
): Promise<DiffResult> {
  for (const name of [image, baseline]) {
    if (isNbdUri(name)) throw unsupported(name, 'NBD exports cannot be compared by this version')
  }
  if (bitmap === '') throw usageError('--bitmap', 'missing; it names the bitmap to add')
  const { granularity, enable = false } = options
  let unreadable: UnreadableArea[] = []
  const added: AddedBitmap = { name: bitmap, granularity, recording: enable }
  const made = await addBitmap(image, added, async (bits) => {
    unreadable = await markDifferences(bits, image, baseline, options)
  })
  return { image, bitmap, ...made, unreadable }
}

async function markDifferences(
  bits: Bits,
  image: string,
  baseline: string,
  options: DiffOptions,
): Promise<UnreadableArea[]> {
  const { allowPaths, backingFormat, baselineFormat, signal, onProgress } = options
  const access = { allowPaths, backingFormat }
  const opened: ChainImage[] = []
  const unreadable: UnreadableArea[] = []
  try {
    // It is ours alone already, by a lock that this one must not mind.
    opened.push(await openImage(image, { ...access, format: 'qcow2', forceShare: true }))
    opened.push(await openImage(baseline, { ...access, format: baselineFormat }))
    const [a, b] = opened
    const steps = planComparison([nodeOf(a), nodeOf(b)])
    let told = 0
    await lookAtSteps(steps, {
      direct: true,
      look: (step, reader, memory) => differences(step, reader, memory, bits.granularity),
      async told(step, found) {
        if (signal?.aborted) throw new BackupError('ABORTED', image, 'interrupted')
        if (step.kind === 'unknown') throw damaged([image, baseline][step.side], step)
        // What only the baseline has is no part of the image.
        if (!('length' in step) || step.start >= bits.size) return false
        for (const { start, length } of found?.areas ?? []) bits.add(start, length)
        if (found?.why !== undefined) {
          const { start, length } = step
          unreadable.push({ start, length, side: found.side as Side, why: found.why })
        }
        const position = step.start + step.length
        if (position - told >= PROGRESS_BYTES || position >= bits.size) {
          told = position
          onProgress?.(position, bits.size)
        }
        return false
      },
    })
    return unreadable
  } finally {
    for (const one of opened) await closeChain(one)
  }
}

/** The granules of a step that differ; all of them if it cannot be read. */
async function differences(
  step: ReadStep,
  reader: ContentReader,
  memory: Buffer,
  granularity: number,
): Promise<{ areas: Area[]; side?: Side; why?: string }> {
  const { start, length } = step
  const found = await readStep(step, reader, memory)
  if ('why' in found) return { areas: [{ start, length }], ...found }
  const [a, b] = found.bytes
  const areas: Area[] = []
  if (a.equals(b)) return { areas }
  for (let at = 0; at < length; ) {
    const border = Math.floor((start + at) / granularity + 1) * granularity - start
    const end = Math.min(border, length)
    if (!a.subarray(at, end).equals(b.subarray(at, end))) {
      const last = areas.at(-1)
      if (last && last.start + last.length === start + at) last.length += end - at
      else areas.push({ start: start + at, length: end - at })
    }
    at = end
  }
  return { areas }
}

/** @throws BackupError as the reason has it, instead of QEMU's words for it */
async function openImage(
  name: string,
  options: Parameters<typeof openChain>[1],
): Promise<ChainImage> {
  try {
    return await openChain(name, options)
  } catch (error) {
    if (!(error instanceof QemuImgError)) throw error
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      if (cause instanceof BackupError) throw cause
    }
    throw new BackupError('BAD_IMAGE', name, error.message)
  }
}

function damaged(path: string, { start, corruption }: { start: number; corruption?: string }) {
  const why = `cannot tell what is at guest offset ${start}: ${corruption ?? 'it cannot be read'}`
  return new BackupError('BAD_IMAGE', path, why)
}
