import { type CompareOptions, compareDisks, type Finding } from '../../compare/compare.ts'
import { nodeOf } from '../chain-node.ts'
import { closeChain, type OpenChain, type OpenChainOptions, openChain } from '../qemu-chain.ts'

export interface CompareImagesOptions
  extends Omit<OpenChainOptions, 'format'>,
    Omit<CompareOptions, 'names' | 'onEqual'> {
  /** Of the two images. Default: recognised by their first bytes. */
  formats?: readonly [string | undefined, string | undefined]
  /** Id or name of an internal snapshot of each: it is read as it was then, and is of that size. */
  snapshots?: readonly [string | undefined, string | undefined]
  /** Called when both images are open. */
  onOpen?: () => void | Promise<void>
  /**
   * Called as bytes turn out to be equal, in order: as many at a time as QEMU looks at.
   * @param size of the larger image, bytes
   */
  onEqual?: (bytes: number, size: number) => void | Promise<void>
}

/** Result of comparing two images. */
export interface Comparison {
  /** The guest sees the same; of images of different sizes, the rest of the larger one is zero. */
  identical: boolean
  /** Virtual sizes, bytes. */
  sizes: [number, number]
  /** The first finding, in guest order. */
  finding?: Finding
}

/**
 * Compares the guest content of two images, each with its backing chain. Bytes are read only where
 * the metadata does not decide: not for zeroes, nor for the same place of the same file.
 * @param names as the user gave them
 * @throws QemuImgError if an image cannot be opened; BackupError IO if the comparison cannot go on,
 * ABORTED
 */
export async function compareImages(
  names: readonly [string, string],
  options: CompareImagesOptions = {},
): Promise<Comparison> {
  const { formats = [], snapshots = [], onOpen, onEqual, warn } = options
  const chains: OpenChain[] = []
  try {
    for (const [i, name] of names.entries()) {
      const chosen = { format: formats[i], snapshot: snapshots[i] }
      chains.push(await openChain(name, { ...options, ...chosen }))
    }
    const [a, b] = chains.map(({ images }) => images)
    await onOpen?.()
    const size = Math.max(a[0].size, b[0].size)
    // The reported offsets and progress depend on the lengths of QEMU's answers.
    const looked = { warn, capped: options.strict || onEqual !== undefined }
    const finding = await compareDisks([nodeOf(a, looked), nodeOf(b, looked)], {
      ...options,
      names,
      onEqual: onEqual && ((bytes) => onEqual(bytes, size)),
    })
    return { identical: finding === undefined, sizes: [a[0].size, b[0].size], finding }
  } finally {
    for (const chain of chains) await closeChain(chain)
  }
}
