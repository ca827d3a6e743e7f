import type { OpenedFile } from '../image/file.ts'
import type { CopyCounters } from '../native.ts'
import { OVERLAY } from '../plan/policy.ts'
import { packRows } from '../plan/rows.ts'
import type { Piece, SourceFile } from '../source/source.ts'
import { Cloning } from './cloning.ts'
import { runCopy } from './job.ts'
import type { JobOptions } from './spec.ts'

/** How bytes are copied into a base. */
export type CopyOptions = Partial<Pick<JobOptions, 'rateLimit' | 'signal' | 'onProgress'>>

/** What is written into a file that exists, in the order of the file. */
export interface Patch {
  /** Where bytes come from; `start` is where in the file they go. What they leave out stays. */
  pieces: AsyncIterable<readonly Piece[]>
  /** Length of the file from now on, bytes. */
  size: number
  /** What all starts and lengths are multiples of, and `size` too. */
  unit: number
}

/** Pieces of a batch lie anywhere: as many at once as of a backup over NBD. */
const REQUESTS = 64
/** Larger ones gain nothing: it is what is looked at for zeroes at a time. */
const MOST_UNIT = 65536
const RETRIES = 3

/**
 * Writes pieces into a file. All is durable when it resolves.
 * @param files what the pieces point into
 * @throws BackupError
 */
export async function patchFile(
  files: readonly SourceFile[],
  target: OpenedFile,
  { pieces, size, unit }: Patch,
  { rateLimit, signal, onProgress }: CopyOptions = {},
): Promise<CopyCounters> {
  const { path, handle } = target
  return await runCopy(
    { name: path, size, stores: files },
    { path, store: { kind: 'file', fd: handle.fd } },
    plan(pieces, size, new Cloning(files, target)),
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
  batches: AsyncIterable<readonly Piece[]>,
  size: number,
  cloning: Cloning,
): AsyncGenerator<Float64Array> {
  let end = 0
  for await (const batch of batches) {
    const rows: (Piece | { kind: 'clean'; start: number; length: number })[] = []
    for (const piece of await cloning.take(batch)) {
      if (piece.start > end) rows.push({ kind: 'clean', start: end, length: piece.start - end })
      rows.push(piece)
      end = piece.start + piece.length
    }
    if (rows.length > 0) yield packRows(rows, OVERLAY)
  }
  if (end < size) yield packRows([{ kind: 'clean', start: end, length: size - end }], OVERLAY)
}

/** The largest power of two that all the numbers are multiples of, up to what is of use. */
export function commonUnit(numbers: Iterable<number>): number {
  let unit = MOST_UNIT
  for (const number of numbers) while (number % unit !== 0) unit /= 2
  return unit
}
