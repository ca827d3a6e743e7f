import type { Mapping } from '../source/source.ts'

/**
 * Decides whether a run of guest bytes is copied, zeroed or skipped.
 * - `copy`: read and stored (bytes that turn out to be zero are still not stored as data).
 * - `zero`: recorded as zero without being read.
 * - `skip`: nothing is recorded.
 */
export type Action = 'copy' | 'zero' | 'skip'

/**
 * The target is fresh and has no backing file, so whatever is not recorded in it reads as zero.
 * Decided by the content of the source's whole chain alone, never by how bytes are copied: a copy
 * method that is refused must not change the result.
 */
export const FRESH: Readonly<Record<Mapping['kind'], Action>> = {
  // Content that is only known by reading it.
  data: 'copy',
  deflate: 'copy',
  zstd: 'copy',
  // A layer says that it reads as zero: so does an unallocated cluster of a fresh image.
  zero: 'skip',
  // No layer of the chain has it, so it reads as zero.
  hole: 'skip',
}

/**
 * The target lies over the previous backup, so whatever is not recorded in it reads as it was then.
 * The kinds are those of dirty ranges; the rest is `clean`.
 */
export const OVERLAY: Readonly<Record<Mapping['kind'] | 'clean', Action>> = {
  // Written since, and there is content.
  data: 'copy',
  deflate: 'copy',
  zstd: 'copy',
  // Zeroed since: without a flag the previous backup's bytes would show.
  zero: 'zero',
  // Nothing is stored any more (trimmed, or never was): also a zero flag, as old data may be stored
  // in the previous backup.
  hole: 'zero',
  // Not written since: the previous backup has it.
  clean: 'skip',
}
