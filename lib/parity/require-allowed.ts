import { type ChainOptions, closeImages, openImages } from '../image/image-chain.ts'
import { SHARED_READING } from '../image/locks.ts'
import { recogniseAsQemu } from '../qemu-img/qemu-chain.ts'

/**
 * Checks all files that an image names with the gate before another program opens it, which would follow any
 * name. A damaged or missing image passes: no file that it names was found.
 * @throws BackupError NOT_ALLOWED, or the error of opening a file that the image names
 */
export async function requireAllowed(
  image: string,
  options: Pick<ChainOptions, 'format' | 'allowPaths' | 'backingFormat'>,
): Promise<void> {
  const { format, allowPaths, backingFormat } = options
  let damaged = false
  try {
    const images = await openImages(image, {
      format,
      allowPaths,
      backingFormat,
      recognise: recogniseAsQemu,
      use: () => SHARED_READING,
      reword(error, { depth, step, path }) {
        const own = depth === 0 && (step === 'read' || path === image)
        damaged = own && error.code !== 'NOT_ALLOWED'
        return error
      },
    })
    await closeImages(images)
  } catch (error) {
    if (!damaged) throw error
  }
}
