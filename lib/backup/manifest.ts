import { basename } from 'node:path'
import { openTarget, type Target } from '../copy/target.ts'
import type { SourceIdentity } from '../copy/target-check.ts'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { readAt } from '../format/read.ts'
import { openFile } from '../image/file.ts'
import { BLOCK_SIZE } from './content.ts'
import type { ContentHash, CopyResult } from './types.ts'

/** What a manifest takes from a copy. */
type Written = Pick<
  CopyResult,
  'virtualSize' | 'dataBytes' | 'zeroBytes' | 'unchangedBytes' | 'content'
>

/**
 * What is kept beside an image so that it can be verified without its source: one JSON object in
 * `IMAGE.manifest.json`.
 */
export interface Manifest extends Written {
  /** Of this format. */
  version: 1
  /** The image's name, without a directory. */
  image: string
  /** When the image was complete, ISO 8601. */
  created: string
  /** As the image names it; missing for an image that stands alone. */
  backingFile?: string
  content: ContentHash
}

/** No manifest is larger. */
const MAX_BYTES = 64 * 1024

/** A manifest on its way: it appears when it is published, as the image does. */
export interface ManifestFile {
  readonly path: string
  /** @throws BackupError IO */
  write(written: Written, backingFile?: string): Promise<void>
  /** @throws BackupError TARGET_EXISTS, IO */
  publish(): Promise<void>
  /** Never fails. */
  discard(): Promise<void>
}

/** Where an image's manifest is. */
export function manifestPath(image: string): string {
  return `${image}.manifest.json`
}

/**
 * Opens the manifest of an image that is about to be made.
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IO; USAGE if the image is not a file
 */
export async function openManifest(
  image: Target,
  force: boolean | undefined,
  sources: readonly SourceIdentity[],
): Promise<ManifestFile> {
  if (image.room !== undefined) throw argumentError('manifest', 'goes with a target that is a file')
  const path = manifestPath(image.path)
  const file = await openTarget(path, { force, sources })
  return {
    path,
    async write({ virtualSize, dataBytes, zeroBytes, unchangedBytes, content }, backingFile) {
      const manifest: Manifest = {
        version: 1,
        image: basename(image.path),
        created: new Date().toISOString(),
        virtualSize,
        dataBytes,
        zeroBytes,
        unchangedBytes,
        ...(backingFile !== undefined && { backingFile }),
        content: content!,
      }
      try {
        await file.handle!.writeFile(`${JSON.stringify(manifest, null, 2)}\n`)
        await file.handle!.sync()
      } catch (error) {
        throw ioError(path, error)
      }
    },
    publish: () => file.publish(),
    discard: () => file.discard(),
  }
}

/**
 * Reads the manifest of an image.
 * @throws BackupError IO, BAD_MANIFEST if it is none, UNSUPPORTED if it is of a later version
 */
export async function readManifest(image: string): Promise<Manifest> {
  const path = manifestPath(image)
  const manifest = parse(path, await contentsOf(path))
  const { version } = manifest
  if (Number.isInteger(version) && (version as number) > 1) {
    throw new BackupError('UNSUPPORTED', path, `is a manifest of version ${version}; update`)
  }
  if (version === 1 && isSize(manifest.virtualSize) && isContent(manifest.content)) {
    return manifest as unknown as Manifest
  }
  throw new BackupError('BAD_MANIFEST', path, 'is not a manifest of this program')
}

async function contentsOf(path: string): Promise<string> {
  const file = await openFile(path)
  try {
    return file.size > MAX_BYTES ? '' : (await readAt(file, 0, file.size)).toString()
  } finally {
    await file.handle.close()
  }
}

function parse(path: string, text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Told below.
  }
  throw new BackupError('BAD_MANIFEST', path, 'is not a manifest of this program')
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isContent(value: unknown): boolean {
  const { algorithm, blockSize, checksum } = (value ?? {}) as Partial<Record<string, unknown>>
  return (
    algorithm === 'blake2b-256' &&
    blockSize === BLOCK_SIZE &&
    /^[0-9a-f]{64}$/.test(String(checksum))
  )
}
