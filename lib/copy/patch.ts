import type { OpenFile } from '../image/file.ts'
import type { CopyCounters } from '../native.ts'
import { OVERLAY } from '../plan/policy.ts'
import { packRows } from '../plan/rows.ts'
import type { Mapping, SourceFile } from '../source/source.ts'
import { withTurns } from '../turns.ts'
import { BlockSharer } from './block-sharer.ts'
import { runCopy } from './run-copy.ts'
import type { JobOptions } from './spec.ts'

/** How bytes are copied into a base. */
export type CopyOptions = Partial<Pick<JobOptions, 'rateLimit' | 'signal' | 'onProgress'>>

/** Data to write into an existing file, in file order. */
export interface Patch {
  /** Sources of the bytes; `start` is their offset in the file. Gaps between them are left unchanged. */
  mappings: AsyncIterable<readonly Mapping[]>
  /** Length of the file from now on, bytes. */
  size: number
  /** Alignment of all starts and lengths, and of `size`. */
  unit: number
}

/** Mappings of a batch lie anywhere: as many at once as of a backup over NBD. */
const REQUESTS = 64
/** Larger units gain nothing: this is the unit of zero detection. */
const MAX_UNIT = 65536
const RETRIES = 3

/**
 * Writes mappings into a file. All is durable when it resolves.
 * @param files the stores that the mappings point into
 * @throws BackupError
 */
export async function patchFile(
  files: readonly SourceFile[],
  target: OpenFile,
  { mappings, size, unit }: Patch,
  { rateLimit, signal, onProgress }: CopyOptions = {},
): Promise<CopyCounters> {
  const { path, handle } = target
  return await runCopy(
    { name: path, size, stores: files },
    { path, store: { kind: 'file', fd: handle.fd } },
    () => plan(withTurns(mappings, path, signal), size, new BlockSharer(files, target)),
    {
      format: { kind: 'patch', unit },
      engine: 'auto',
      direct: 'auto',
      requests: REQUESTS,
      retries: RETRIES,
      rateLimit,
      signal,
      onProgress,
    },
  )
}

async function* plan(
  batches: AsyncIterable<readonly Mapping[]>,
  size: number,
  cloning: BlockSharer,
): AsyncGenerator<Float64Array> {
  let end = 0
  for await (const batch of batches) {
    const rows: (Mapping | { kind: 'clean'; start: number; length: number })[] = []
    for (const mapping of await cloning.take(batch)) {
      if (mapping.start > end) rows.push({ kind: 'clean', start: end, length: mapping.start - end })
      rows.push(mapping)
      end = mapping.start + mapping.length
    }
    if (rows.length > 0) yield packRows(rows, OVERLAY)
  }
  if (end < size) yield packRows([{ kind: 'clean', start: end, length: size - end }], OVERLAY)
}

/** The largest useful power of two that divides all the numbers. */
export function commonUnit(numbers: Iterable<number>): number {
  let unit = MAX_UNIT
  for (const number of numbers) while (number % unit !== 0) unit /= 2
  return unit
}
