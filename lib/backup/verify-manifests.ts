import { argumentError, BackupError, ioError } from '../errors.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { type OpenFile, openFile } from '../image/file.ts'
import { lockFile, READING, SHARED_READING } from '../image/locks.ts'
import { hashImage } from './content-hash.ts'
import { type Manifest, manifestPath, readManifest } from './manifest.ts'
import { type Comparison, RecordedContent } from './recorded-content.ts'
import type { Progress } from './types.ts'
import { requireSound } from './verify-content.ts'

/** How backups are verified. */
export interface VerifyManifestsOptions {
  /** An image without a manifest is a failure. Default: only its structure is checked then. */
  requireManifest?: boolean
  /** Also images that another process may be writing to. */
  forceShare?: boolean
  signal?: AbortSignal
  /** Called at most ten times a second for each image. */
  onProgress?: (progress: Progress) => void
}

/** Result for one image. */
export interface ManifestVerdict {
  /** Path, as given. */
  image: string
  /** Missing if there is none, or it cannot be read. */
  manifest?: Manifest
  /** The image is sound and, where there is a manifest, its content is as recorded. */
  same: boolean
  /** The fault, if `same` is false. */
  difference?: string
  /** `BackupError.code` of the fault. */
  code?: BackupError['code']
  /** Caveats, such as that there is no manifest. */
  notes: string[]
}

/**
 * Verifies backups: the structure of each image is checked, and, where there is a manifest beside it,
 * its own content is read and compared with the hash taken when it was made.
 * The images it builds on have manifests of their own. One result for each image, whatever is wrong
 * with one of them.
 * @throws BackupError ABORTED, and USAGE for an empty name
 */
export async function* verifyManifests(
  images: readonly string[],
  options: VerifyManifestsOptions = {},
): AsyncGenerator<ManifestVerdict> {
  for (const image of images) {
    if (image === '') throw argumentError('image', 'the name is empty')
    yield await verifyOne(image, options)
  }
}

async function verifyOne(image: string, options: VerifyManifestsOptions): Promise<ManifestVerdict> {
  const { requireManifest = false, forceShare } = options
  let manifest: Manifest | undefined
  try {
    const file = await openFile(image)
    try {
      lockFile(file.handle, image, forceShare ? SHARED_READING : READING)
      manifest = await readManifest(image)
      if (requireManifest && !manifest) {
        const why = `has no manifest, ${manifestPath(image)}; backups made with --manifest have one`
        throw new BackupError('BAD_MANIFEST', image, why)
      }
      const { record, difference, notes } = await compareWithManifest(
        file,
        image,
        manifest,
        options,
      )
      if (difference === undefined && (record || !requireManifest)) {
        return { image, ...(record && { manifest: record }), same: true, notes }
      }
      throw new BackupError('DIFFERENT', image, difference ?? 'has no manifest')
    } finally {
      await file.handle.close()
    }
  } catch (error) {
    const { code, message } = ioError(image, error)
    if (code === 'ABORTED') throw error
    return {
      image,
      ...(manifest && { manifest }),
      same: false,
      difference: message,
      code,
      notes: [],
    }
  }
}

/**
 * Checks an image that is open, and compares it with its manifest.
 * @param path by which it was named, beside which the manifest is
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO, ABORTED
 */
export async function compareWithManifest(
  file: OpenFile,
  path: string,
  manifest: Manifest | undefined,
  { signal, onProgress }: Pick<VerifyManifestsOptions, 'signal' | 'onProgress'>,
): Promise<Comparison> {
  const header = await requireSound(file, signal)
  if (!manifest) {
    return {
      notes: [`${path}: has no manifest; its structure is sound, its content was not checked`],
    }
  }
  return await compareContent(file, path, header, manifest, { signal, onProgress })
}

/**
 * Compares the content of an image that is open with its manifest.
 * @param path by which it was named
 * @throws BackupError BAD_IMAGE, IO, ABORTED
 */
export async function compareContent(
  file: OpenFile,
  path: string,
  header: Qcow2Header,
  manifest: Manifest,
  { signal, onProgress }: Pick<VerifyManifestsOptions, 'signal' | 'onProgress'>,
): Promise<Comparison> {
  const recorded = new RecordedContent(path, manifest, header)
  const { difference } = recorded
  if (difference !== undefined) return { difference, notes: [] }
  const { checksum, ...counts } = await hashImage(file, header, { signal, onProgress })
  return recorded.compare(checksum, counts)
}
