import { basename } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { readAt } from '../format/read.ts'
import { type OpenFile, openFile } from '../image/file.ts'
import { BLOCK_SIZE } from './content-hash.ts'
import type { ContentHash, CopyResult } from './types.ts'

/** The part of a copy's result that a manifest records. */
type ContentSummary = Pick<
  CopyResult,
  'virtualSize' | 'dataBytes' | 'zeroBytes' | 'unchangedBytes' | 'content'
>

/**
 * Record beside an image, with which it can be verified without its source: one JSON object in
 * `IMAGE.manifest.json`.
 */
export interface Manifest extends ContentSummary {
  /** Of this format. */
  version: 1
  /** The image's name, without a directory. */
  image: string
  /** When the image was complete, ISO 8601. */
  created: string
  /** The internal snapshot of the source that it is a backup of, if it is of one. */
  snapshot?: string
  /** As the image names it; missing for an image that stands alone. */
  backingFile?: string
  content: ContentHash
  /**
   * While an image is replaced, the record for the previous image: null for one
   * that had no manifest.
   */
  otherwise?: (Manifest | null)[]
}

/** No manifest is larger. */
export const MAX_BYTES = 64 * 1024

/** Where an image's manifest is. */
export function manifestPath(image: string): string {
  return `${image}.manifest.json`
}

/** Builds the manifest of a new image. */
export function manifestOf(
  image: string,
  written: ContentSummary,
  { backingFile, snapshot }: Pick<Manifest, 'backingFile' | 'snapshot'>,
): Manifest {
  const { virtualSize, dataBytes, zeroBytes, unchangedBytes, content } = written
  return {
    version: 1,
    image: basename(image),
    created: new Date().toISOString(),
    virtualSize,
    dataBytes,
    zeroBytes,
    unchangedBytes,
    ...(snapshot !== undefined && { snapshot }),
    ...(backingFile !== undefined && { backingFile }),
    content: content as ContentHash,
  }
}

/** A manifest's records, one for each image that may be beside it; null: no record. */
export function recordsOf({ otherwise = [], ...record }: Manifest): (Manifest | null)[] {
  return [record, ...otherwise]
}

/**
 * Reads the manifest of an image.
 * @returns undefined if there is none
 * @throws BackupError IO, BAD_MANIFEST if it is none, UNSUPPORTED if it is of a later version
 */
export async function readManifest(image: string): Promise<Manifest | undefined> {
  const path = manifestPath(image)
  const file = await openIfAny(path)
  return file && (await readAndClose(path, file))
}

/**
 * Reads a manifest.
 * @param path as messages name it
 * @param place where it is looked up
 * @returns its records, or why it is not a manifest; undefined if there is no such file
 * @throws BackupError IO; UNSUPPORTED if it is neither a regular file nor a block device
 */
export async function findManifest(
  path: string,
  place: string,
): Promise<{ identity: string; manifest: Manifest | BackupError } | undefined> {
  const file = await openIfAny(place)
  if (!file) return undefined
  const manifest = await readAndClose(path, file).catch((error) => ioError(path, error))
  return { identity: file.identity, manifest }
}

async function openIfAny(path: string): Promise<OpenFile | undefined> {
  return await openFile(path).catch((error: BackupError) => {
    if (error.errno === 'ENOENT') return undefined
    throw error
  })
}

async function readAndClose(path: string, file: OpenFile): Promise<Manifest> {
  try {
    const contents = file.size > MAX_BYTES ? '' : (await readAt(file, 0, file.size)).toString()
    return manifestIn(path, contents)
  } finally {
    await file.handle.close()
  }
}

function manifestIn(path: string, contents: string): Manifest {
  const manifest = parse(path, contents)
  const { version } = manifest
  if (Number.isInteger(version) && (version as number) > 1) {
    throw new BackupError(
      'UNSUPPORTED',
      path,
      `is a manifest of version ${version}, which needs a newer version of this program`,
    )
  }
  const { otherwise } = manifest
  const others = Array.isArray(otherwise) ? otherwise : otherwise === undefined ? [] : [undefined]
  if (isManifest(manifest) && others.every((one) => one === null || isManifest(one))) {
    return manifest as unknown as Manifest
  }
  throw new BackupError('BAD_MANIFEST', path, 'is not a manifest of this program')
}

function parse(path: string, text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Reported below.
  }
  throw new BackupError('BAD_MANIFEST', path, 'is not a manifest of this program')
}

function isManifest(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const manifest = value as Partial<Record<keyof Manifest, unknown>>
  const counts = [manifest.dataBytes, manifest.zeroBytes, manifest.unchangedBytes]
  const names = [manifest.image, manifest.backingFile, manifest.snapshot]
  return (
    manifest.version === 1 &&
    isSize(manifest.virtualSize) &&
    counts.every((count) => count === undefined || isSize(count)) &&
    names.every((name) => name === undefined || typeof name === 'string') &&
    isContent(manifest.content)
  )
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
