import {
  abortedError,
  argumentError,
  BackupError,
  messageOf,
  throwIfAborted,
  usageError,
} from '../errors.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { show } from '../schema.ts'
import { withTurns } from '../turns.ts'
import { BATCH } from './layer.ts'
import { withProgress } from './look-up-progress.ts'
import { type DirtyMapping, extentOf, type Source, type SourceReader } from './source.ts'
import type { OpenOptions } from './source-chain.ts'

/** A run of bytes of a custom source. */
export interface CustomExtent {
  /** Guest offset, bytes. */
  start: number
  /** Bytes, never 0. */
  length: number
  /** Reads as zero, and need not be read. */
  zero: boolean
  /** Written since the previous backup; needed for incremental backups only. */
  dirty?: boolean
}

/**
 * A disk that the calling program reads: hand it to `fullBackup` or `incrementalBackup` in place of
 * a path. Its content must not change while it is copied.
 */
export interface CustomSource {
  /** As messages name it. */
  readonly name: string
  /** Virtual size in bytes, a multiple of 512. */
  readonly size: number
  /**
   * The disk's extents, bytes: ordered, contiguous, from 0 to `size`. Iterated ahead of the reads, a
   * little at a time.
   */
  extents(): AsyncIterable<CustomExtent> | Iterable<CustomExtent>
  /**
   * Reads exactly `length` bytes from `start` on, at most 2 MiB. Several reads are under way at once,
   * as many as the option `requests` says. One that rejects is asked again, as `retries` says.
   * @param signal aborted when the bytes are no longer needed
   */
  read(start: number, length: number, signal: AbortSignal): Promise<Uint8Array>
  /**
   * Discards a range that is durable in the target, or is not needed; only called with the option
   * `discardAfterCopy`, with whole granules. No byte of it is asked for again; it may be discarded
   * once more, as part of a larger range.
   */
  discard?(start: number, length: number): Promise<void>
  /** Called once when the copy has ended, however it did, also where it could not begin. */
  close?(): Promise<void> | void
}

/**
 * Takes a custom source as a disk that can be copied.
 * @throws BackupError USAGE if its size can be no disk's, or for options about files and servers
 */
export function openCustom(custom: CustomSource, options: OpenOptions = {}): Source {
  const { name, size } = custom
  const { bitmap, format, connections, timeoutMs, requestSize } = options
  const given = { bitmap, format, connections, timeoutMs, requestSize }
  for (const [option, value] of Object.entries(given)) {
    if (value !== undefined) throw argumentError(option, 'is not supported for a custom source')
  }
  if (!Number.isSafeInteger(size) || size < 0 || size % SECTOR_SIZE !== 0) {
    throw usageError(name, `its size of ${size} bytes is not a multiple of ${SECTOR_SIZE}`)
  }
  const reader: SourceReader = {
    kind: 'reader',
    path: name,
    size,
    identity: `custom:${name}`,
    read: (start, length, signal) => custom.read(start, length, signal),
  }
  const { signal } = options
  const mappings = () => withTurns(mappingsOf(custom, false, signal), name, signal)
  return {
    name,
    format: 'raw',
    size,
    stores: [reader],
    canExtents: true,
    canDetectZeroes: false,
    canDiscard: custom.discard !== undefined,
    mappings,
    dirtyMappings: () => withTurns(mappingsOf(custom, true, signal), name, signal),
    extents({ detectZeroes = false, onProgress } = {}) {
      if (detectZeroes) throw argumentError('detectZeroes', 'is only supported for files')
      const batches = withProgress(extentBatches(mappings()), size, onProgress)
      return mergeExtents(alignExtents(batches, SECTOR_SIZE))
    },
    discarding() {
      if (!custom.discard) throw argumentError('discardAfterCopy', `${name} has no discard()`)
      return async (ranges) => {
        for (const { start, length } of ranges) await custom.discard!(start, length)
      }
    },
    async checkUnchanged() {},
    async close() {
      await custom.close?.()
    },
  }
}

/**
 * The extents in batches, checked: a gap would be a hole in the backup.
 * @param marked whether each has to say if it is dirty
 */
async function* mappingsOf(
  custom: CustomSource,
  marked: boolean,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly DirtyMapping[]> {
  let out: DirtyMapping[] = []
  for await (const { start, length, zero, dirty = true } of checked(custom, marked, signal)) {
    out.push(
      zero
        ? { kind: 'zero', start, length, dirty }
        : { kind: 'data', start, length, store: 0, offset: start, dirty },
    )
    if (out.length < BATCH) continue
    yield out
    out = []
  }
  if (out.length > 0) yield out
}

async function* checked(
  custom: CustomSource,
  marked: boolean,
  signal: AbortSignal | undefined,
): AsyncGenerator<CustomExtent> {
  const { name, size } = custom
  const wrong = (why: string) => usageError(name, `extents(): ${why}`)
  let at = 0
  try {
    for await (const extent of interruptible(custom.extents(), name, signal)) {
      const { start, length, zero, dirty } = extent
      if (start !== at) throw wrong(`an extent starts at ${start} where the last ended at ${at}`)
      if (!Number.isSafeInteger(length) || length <= 0 || length > size - at) {
        throw wrong(`an extent of ${length} bytes at ${start} of a disk of ${size}`)
      }
      // A text or a number that counts as true or false would leave data out.
      if (typeof zero !== 'boolean') {
        throw wrong(`the extent at ${start} does not say whether it is zero: ${show(zero)}`)
      }
      if (marked && typeof dirty !== 'boolean') {
        throw wrong(`the extent at ${start} does not say whether it is dirty: ${show(dirty)}`)
      }
      yield { start, length, zero, dirty }
      at += length
    }
  } catch (error) {
    if (error instanceof BackupError) throw error
    throw new BackupError('IO', name, `extents(): ${messageOf(error)}`, { cause: error })
  }
  if (at !== size) throw wrong(`they end at ${at}, the disk at ${size}`)
}

/** The items; an abort is obeyed also while the program's iterator does not answer. */
async function* interruptible<T>(
  items: AsyncIterable<T> | Iterable<T>,
  name: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<T> {
  if (!signal || !(Symbol.asyncIterator in items)) return yield* items
  const iterator = items[Symbol.asyncIterator]()
  let isDone = false
  // One listener for all items: a promise that lives as long as they do would keep all of their races.
  let stop = () => {}
  const onAbort = () => stop()
  signal.addEventListener('abort', onAbort)
  try {
    for (;;) {
      throwIfAborted(signal, name)
      const result = await new Promise<IteratorResult<T>>((resolve, reject) => {
        stop = () => reject(abortedError(name, signal))
        iterator.next().then(resolve, reject)
      })
      isDone = result.done === true
      if (result.done) return
      yield result.value
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    const returned = isDone ? undefined : iterator.return?.()
    // One that does not answer would not answer to this either.
    if (signal.aborted) returned?.catch(() => {})
    else await returned
  }
}

async function* extentBatches(batches: AsyncIterable<readonly DirtyMapping[]>) {
  for await (const batch of batches) yield batch.map(extentOf)
}
