import { type BlockNode, blockStatus } from '../../block-status/node.ts'
import {
  ALLOCATED,
  COMPRESSED,
  DATA,
  OFFSET_VALID,
  type Status,
  ZERO,
} from '../../block-status/status.ts'
import { type Progress, positions } from '../../progress.ts'
import { Turns } from '../../turns.ts'

/** A run of guest bytes with one status, as `qemu-img map` shows it. */
export interface MapEntry {
  /** Guest offset, bytes. */
  start: number
  /** Bytes; 0 only in the one entry of an empty range. */
  length: number
  /** Which image of the chain answers: 0 is the topmost. */
  depth: number
  /** That image holds it. */
  present: boolean
  /** Reads as zero. */
  zero: boolean
  /** That image stores it. */
  data: boolean
  /** Stored compressed; never `offset` then. */
  compressed: boolean
  /** Where it is in `filename`, bytes, if it is there as it is. */
  offset?: number
  filename?: string
}

export interface MapRange {
  /** First guest offset, bytes. Default 0. */
  start?: number
  /** Bytes. Default: to the end. */
  length?: number
}

/** How a mapping is watched and ended. */
export interface MapControl extends MapRange {
  /** Of the image, for messages. */
  name?: string
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

/** Entries per batch: enough that the cost of a batch is not seen. */
const BATCH = 1024

/**
 * Where the guest bytes of a chain are: batches of ordered, contiguous entries, neighbours with
 * equal status merged. Of an empty range one entry of length 0.
 * @throws StatusError
 */
export async function* mapNode(
  top: BlockNode,
  { start = 0, length = top.size, name = 'image', signal, onProgress }: MapControl = {},
): AsyncGenerator<MapEntry[]> {
  const end = Math.min(start + length, top.size)
  let last: MapEntry | undefined
  let batch: MapEntry[] = []
  const turns = new Turns(name, signal)
  const tell = positions('map', top.size, onProgress)
  try {
    for (let at = start; at < end; ) {
      const pause = turns.step()
      if (pause) await pause
      tell?.(at)
      const entry = entryAt(top, at, end - at)
      if (entry instanceof Promise) {
        await entry
        continue
      }
      at += entry.length
      if (last && continues(last, entry)) {
        last.length += entry.length
        continue
      }
      last = entry
      batch.push(entry)
      // The last one may still grow.
      if (batch.length > BATCH) {
        yield batch.slice(0, -1)
        batch = [entry]
      }
    }
  } catch (error) {
    // Complete entries count, also before an error.
    if (batch.length > 1) yield batch.slice(0, -1)
    throw error
  }
  tell?.(end, true)
  yield last ? batch : [emptyEntry(start)]
}

/** The entry for an empty range. */
export function emptyEntry(start: number): MapEntry {
  const none = { present: false, zero: false, data: false, compressed: false }
  return { start, length: 0, depth: 0, ...none }
}

/** The entry at `at`, or the promise that asking again will get further. */
function entryAt(top: BlockNode, at: number, bytes: number): MapEntry | Promise<void> {
  let depth = 0
  let length = bytes
  for (let node = top; ; node = node.backing) {
    const status = blockStatus(node, at, length)
    if (status instanceof Promise) return status
    if ((status.flags & (ZERO | DATA)) !== 0 || !node.backing) return entryOf(at, depth, status)
    length = status.length
    depth++
  }
}

function entryOf(start: number, depth: number, status: Status): MapEntry {
  const { flags, length, offset, file } = status
  const entry: MapEntry = {
    start,
    length,
    depth,
    present: (flags & ALLOCATED) !== 0,
    zero: (flags & ZERO) !== 0,
    data: (flags & DATA) !== 0,
    compressed: (flags & COMPRESSED) !== 0,
  }
  if ((flags & OFFSET_VALID) !== 0) {
    entry.offset = offset
    entry.filename = file?.filename
  }
  return entry
}

function continues(last: MapEntry, next: MapEntry): boolean {
  return (
    last.zero === next.zero &&
    last.data === next.data &&
    last.compressed === next.compressed &&
    last.present === next.present &&
    last.depth === next.depth &&
    last.filename === next.filename &&
    (last.offset === undefined
      ? next.offset === undefined
      : last.offset + last.length === next.offset)
  )
}
