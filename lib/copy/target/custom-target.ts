import { ioError } from '../../errors.ts'
import { IN_PLACE } from './in-place.ts'
import type { Target, TargetWriter } from './target.ts'

/**
 * A disk that the calling program writes: hand it to `restore` or `fullBackup` in place of a path. It
 * gets the disk as it is, without an image format around it.
 */
export interface CustomTarget {
  /** As messages name it. */
  readonly name: string
  /** Bytes that it can hold; without it as many as the disk has. */
  readonly size?: number
  /**
   * Writes `data`, at most 1 MiB. Several writes are under way at once, 16 at most, none of them over another;
   * their offsets rise. If one rejects, the copy ends.
   * @param data nobody else uses it
   * @param signal aborted when the copy has failed: the copy ends when the call does
   */
  write(offset: number, data: Uint8Array, signal: AbortSignal): Promise<void>
  /**
   * Makes a range read as zero, at most 256 MiB of it. Without it zeroes are written. Every byte
   * of the disk is either written or zeroed.
   */
  zero?(offset: number, length: number, signal: AbortSignal): Promise<void>
  /** Makes all writes durable. Called when no write is under way, and once at the end. */
  flush(signal: AbortSignal): Promise<void>
  /**
   * Called once when the copy has ended, in any way, also where it could not begin. If it rejects, a complete
   * copy fails.
   */
  close?(): Promise<void> | void
}

/** Writes that the program is asked for at once: each has a copy of its bytes. */
const REQUESTS = 16

/**
 * Takes a custom target as one that a copy writes to.
 * @param custom its `close` does its work once, and rejects rather than throws
 */
export function openCustomTarget(custom: CustomTarget): Target {
  const { name: path, size } = custom
  let end = 0
  let written = 0
  const store: TargetWriter = {
    kind: 'writer',
    canZero: custom.zero !== undefined,
    requests: REQUESTS,
    async write(offset, bytes, signal) {
      await custom.write(offset, bytes, signal)
      end = Math.max(end, offset + bytes.length)
      written += bytes.length
    },
    async zero(offset, length, signal) {
      await custom.zero!(offset, length, signal)
      end = Math.max(end, offset + length)
    },
    flush: (signal) => custom.flush(signal),
  }
  return {
    ...IN_PLACE,
    kind: 'custom',
    path,
    store,
    inPlace: true,
    capacity: size,
    async sizes() {
      return { fileSize: size ?? end, allocatedBytes: written }
    },
    located: async () => path,
    // The copy ends with a flush.
    async sync() {
      try {
        await custom.close?.()
      } catch (error) {
        throw ioError(path, error)
      }
    },
    async discard() {
      await Promise.resolve(custom.close?.()).catch(() => {})
    },
  }
}
