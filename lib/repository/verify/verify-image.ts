import { hashImage } from '../../backup/content-hash.ts'
import { contentFault } from '../../backup/recorded-content.ts'
import { requireSound } from '../../backup/verify-content.ts'
import { BackupError, unsupported } from '../../errors.ts'
import { type ChainImage, closeImages, walkChain } from '../../image/image-chain.ts'
import { READING } from '../../image/locks.ts'
import type { ControlOptions } from '../../options.ts'
import { markUnmodified, metadataFault } from '../parent-images.ts'
import type { DiskRecord } from '../record.ts'

interface ImageOptions extends ControlOptions {
  /** Check its structure, and read its content. */
  read: boolean
  /** Also open the image below, as one who reads the disk does. */
  below: boolean
}

/**
 * Compares an image with its record. It is opened as by one who restores it: through the gate, by the recorded
 * format, with QEMU's locks.
 * @throws BackupError DIFFERENT if it is not as recorded, BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO, ABORTED
 */
export async function verifyImage(
  path: string,
  disk: DiskRecord,
  { read, below, signal, onProgress }: ImageOptions,
): Promise<void> {
  const images: ChainImage[] = []
  const chain = walkChain(path, {
    format: 'qcow2',
    recognise: async () => 'qcow2',
    use: () => READING,
    dataFiles: false,
  })
  try {
    for await (const image of chain) {
      images.push(image)
      if (images.length === 1) await requireRecorded(path, image, disk)
      if (!below || images.length === 2) break
    }
    const [{ file }] = images
    if (!read) return
    const header = await requireSound(file, signal)
    const { checksum, ...counts } = await hashImage(file, header, { signal, onProgress })
    const difference = contentFault(disk, checksum, counts)
    if (difference !== undefined) throw new BackupError('DIFFERENT', path, difference)
    await markUnmodified(file, disk)
  } finally {
    await closeImages(images)
  }
}

/** @throws BackupError DIFFERENT, BAD_IMAGE, UNSUPPORTED, IO */
async function requireRecorded(
  path: string,
  { file, header }: ChainImage,
  disk: DiskRecord,
): Promise<void> {
  if (header?.externalDataFile) throw unsupported(path, 'its content is in another file')
  const difference = await metadataFault(file, disk)
  if (difference !== undefined) throw new BackupError('DIFFERENT', path, difference)
}
