import { type BlockNode, statusAbove } from '../../block-status/node.ts'
import { ALLOCATED, DATA, ZERO } from '../../block-status/status.ts'
import { type Progress, positions } from '../../progress.ts'
import { Turns } from '../../turns.ts'
import { OptionError } from './create-options.ts'
import { bitmapsBytes, fullyAllocated, type MeasuredBitmap, roundUp, tooLarge } from './layout.ts'
import type { Qcow2Options } from './qcow2-options.ts'

/** How large an image will be. Bytes; bigint, because disks of 2^53 bytes and more are measured. */
export interface Measure {
  /** With the content that the source has now. */
  required: bigint
  /** Once the guest has written every byte. */
  fullyAllocated: bigint
  /** Further bytes for copying the bitmaps, where source and target can have some. */
  bitmaps?: bigint
}

/** The disk measured: its size, and the known extents of its content. */
export interface MeasureInput {
  /** Virtual size, bytes. */
  size: bigint
  /** Its content; without it the disk is empty. */
  content?: BlockNode
  /** Of a source that can have bitmaps. */
  bitmaps?: readonly MeasuredBitmap[]
  /** Of the image, for messages. */
  name?: string
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

const SECTOR = 512n

/** Size of a raw image of it. */
export function measureRaw({ size }: MeasureInput): Measure {
  const required = roundUp(size, SECTOR)
  return { required, fullyAllocated: required }
}

/**
 * Size of a qcow2 image of it.
 * @throws OptionError if QEMU would not make such an image, StatusError
 */
export async function measureQcow2(
  measured: MeasureInput,
  { version, layout, preallocated, backing, declared }: Qcow2Options,
): Promise<Measure> {
  const { size, content, bitmaps } = measured
  // Of a source QEMU does not check the size.
  if (tooLarge(content ? declared : size, layout)) throw tooLargeError()
  const disk = roundUp(size, layout.clusterSize)
  let data = 0n
  if (content) {
    const clusterSize = Number(layout.clusterSize)
    data = backing ? disk : BigInt(await storedBytes(content, clusterSize, measured))
  }
  // Not before, because QEMU looks at the content, and fails if it cannot.
  if (preallocated) data = disk
  const full = fullyAllocated(size, layout)
  const measure: Measure = { required: full - disk + data, fullyAllocated: full }
  if (version === 3 && bitmaps) measure.bitmaps = bitmapsBytes(bitmaps, size, layout)
  return measure
}

function tooLargeError(): OptionError {
  return new OptionError('The image size is too large (try using a larger cluster size)')
}

/** Bytes of the clusters of a size in which anything is stored that may not be zero. */
async function storedBytes(
  content: BlockNode,
  clusterSize: number,
  { name = 'image', signal, onProgress }: MeasureInput,
): Promise<number> {
  let stored = 0
  const turns = new Turns(name, signal)
  const tell = positions('map', content.size, onProgress)
  for (let at = 0; at < content.size; ) {
    const pause = turns.step()
    if (pause) await pause
    tell?.(at)
    const status = statusAbove(content, at, content.size - at)
    if (status instanceof Promise) {
      await status
      continue
    }
    const { flags, length } = status
    if ((flags & ZERO) === 0 && (flags & (DATA | ALLOCATED)) === (DATA | ALLOCATED)) {
      const end = Math.ceil((at + length) / clusterSize) * clusterSize
      stored += end - Math.floor(at / clusterSize) * clusterSize
      at = end
    } else {
      at += length
    }
  }
  tell?.(content.size, true)
  return stored
}
