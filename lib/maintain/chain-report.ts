import { throwIfAborted } from '../errors.ts'
import { isWritten } from '../image/locks.ts'
import type { ControlOptions } from '../options.ts'
import { positions } from '../progress.ts'
import { factsOf } from '../source/bitmaps/facts.ts'
import {
  type BitmapHealth,
  type ImageFacts,
  validateBitmapChain,
} from '../source/bitmaps/health.ts'
import { type Chain, closeAll, type OpenOptions, openChain } from '../source/source-chain.ts'

/** How a chain is opened for a report. */
export type ChainReportOptions = Pick<OpenOptions, 'format' | 'allowPaths' | 'backingFormat'> &
  ControlOptions

/** An image of a chain. */
export interface ChainReportImage {
  image: string
  format: 'raw' | 'qcow2'
  /** Bytes. */
  virtualSize: number
  /**
   * Another process has it open for writing: its bitmaps are in that process's memory, and those in
   * the file are marked in use, as they should be. QMP's query-named-block-nodes says more.
   */
  live: boolean
}

/** The health of the bitmaps of a backing chain. */
export interface ChainReport {
  /** Top first. */
  images: ChainReportImage[]
  bitmaps: BitmapHealth[]
}

/**
 * Reads the persistent bitmaps of an image and of its backing chain, and judges them. Images that
 * are being written to are read, too.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO, ABORTED
 */
export async function readBitmapChain(
  top: string,
  { format, allowPaths, backingFormat, signal, onProgress }: ChainReportOptions = {},
): Promise<ChainReport> {
  const options = { format, allowPaths, backingFormat, signal, forceShare: true }
  const chain = await openChain(top, options)
  try {
    return await judgeBitmapChain(chain, { signal, onProgress })
  } finally {
    await closeAll(chain.files)
  }
}

/**
 * Like `readBitmapChain`, for a chain that is open.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO, ABORTED
 */
export async function judgeBitmapChain(
  { images, layers }: Pick<Chain, 'images' | 'layers'>,
  { signal, onProgress }: ControlOptions = {},
): Promise<ChainReport> {
  const tell = positions('chain', images.length, onProgress)
  const report: ChainReportImage[] = []
  const facts: ImageFacts[] = []
  for (const [i, image] of images.entries()) {
    throwIfAborted(signal, image.path)
    const live = isWritten(image.file.handle)
    const virtualSize = layers[i].size
    report.push({ image: image.path, format: image.header ? 'qcow2' : 'raw', virtualSize, live })
    facts.push(await factsOf(image, live))
    tell?.(i + 1, i + 1 === images.length)
  }
  return { images: report, bitmaps: validateBitmapChain(facts) }
}
