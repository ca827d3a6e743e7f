import { argumentError, type BackupError } from '../errors.ts'
import { openFile } from '../image/file.ts'
import { lockFile, READING, SHARED_READING } from '../image/locks.ts'
import { type Manifest, readManifest } from './manifest.ts'
import type { Progress } from './types.ts'
import { verifyContent } from './verify-content.ts'

/** How images are held against their manifests. */
export interface VerifyManifestsOptions {
  /** Also images that another process may be writing to. */
  forceShare?: boolean
  signal?: AbortSignal
  /** Called at most ten times a second for each image. */
  onProgress?: (progress: Progress) => void
}

/** What became of one image. */
export interface ManifestVerified {
  image: string
  manifest: Manifest
  /** It is sound, and holds what was read when it was made. */
  same: boolean
  /** What is wrong with it. */
  difference?: string
}

/**
 * Holds images against the manifests beside them: each is checked, and what it holds by itself is
 * read and compared with what was read from the source when it was made. The images it builds on
 * have manifests of their own.
 * @throws BackupError IO, BAD_MANIFEST, UNSUPPORTED, IN_USE, ABORTED
 */
export async function* verifyManifests(
  images: readonly string[],
  options: VerifyManifestsOptions = {},
): AsyncGenerator<ManifestVerified> {
  for (const image of images) {
    const manifest = await readManifest(image)
    const difference = await differenceFrom(manifest, image, options)
    yield { image, manifest, same: difference === undefined, difference }
  }
}

async function differenceFrom(
  manifest: Manifest,
  image: string,
  { forceShare, signal, onProgress }: VerifyManifestsOptions,
): Promise<string | undefined> {
  if (image === '') throw argumentError('image', 'has no name')
  const file = await openFile(image)
  try {
    lockFile(file.handle, image, forceShare ? SHARED_READING : READING)
    await verifyContent(file, manifest, { signal, onProgress })
    return undefined
  } catch (error) {
    const { code, message } = error as BackupError
    if (code === 'DIFFERENT' || code === 'BAD_IMAGE') return message
    throw error
  } finally {
    await file.handle.close()
  }
}
