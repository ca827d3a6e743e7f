import { copyDisk } from '../copy/job.ts'
import type { JobOptions } from '../copy/spec.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import type { CopyCounters } from '../native.ts'
import { ownLayer } from '../source/own-layer.ts'
import type { ContentHash } from './types.ts'

/** Must equal the constant in native/copy/content_hash.cc. */
export const BLOCK_SIZE = 4 * 2 ** 20

/** The checksum as it appears in a copy's result; undefined if none was taken. */
export function contentOf(checksum?: string): { content?: ContentHash } {
  if (checksum === undefined) return {}
  return { content: { algorithm: 'blake2b-256', blockSize: BLOCK_SIZE, checksum } }
}

/** How an image is read back. */
export type ReadBackOptions = Partial<
  Pick<JobOptions, 'engine' | 'direct' | 'requests' | 'signal' | 'onProgress'>
>

/** Mappings are mostly adjacent. */
const REQUESTS = 16

/**
 * Reads a qcow2 image's own clusters, without backing files, and hashes them as the copy did that made it.
 * @returns ContentHash.checksum, and guest bytes by kind
 * @throws BackupError BAD_IMAGE, IO, ABORTED
 */
export async function hashImage(
  file: OpenFile,
  header: Qcow2Header,
  options: ReadBackOptions,
): Promise<CopyCounters & { checksum: string }> {
  const { clusterSize, backingFile } = header
  const { engine = 'auto', direct = 'auto', requests = REQUESTS, signal, onProgress } = options
  const counters = await copyDisk(
    ownLayer(file, header),
    { path: file.path },
    {
      format: { kind: 'hash', unit: clusterSize, hasBacking: Boolean(backingFile) },
      engine,
      direct,
      requests,
      signal,
      retries: 0,
      onProgress: onProgress && ((progress) => onProgress({ ...progress, phase: 'verify' })),
    },
  )
  return { ...counters, checksum: counters.checksum! }
}
