import type { FileHandle } from '../../files.ts'
import type { NativeTargetStore, NativeWriter } from '../../native.ts'

/** Where a copy writes. */
export interface Target extends Publication {
  readonly kind: 'file' | 'device' | 'nbd' | 'custom'
  /** What the addon writes to. Closed by `discard`. */
  readonly store: TargetStore
  /** Of a file or a device, open for reading and writing. Closed by `discard`. */
  readonly handle?: FileHandle
  /** It is written where it stands; a file stands nowhere before it is published. */
  readonly inPlace: boolean
  /** Bytes that it can hold; undefined for a file, which grows. */
  readonly capacity?: number
  /** @throws BackupError IO */
  sizes(): Promise<TargetSizes>
  /**
   * Where it is when it is published: `path`, unless the directory that this led to, which is held open
   * all the time, was moved. Never fails.
   */
  located(): Promise<string>
}

/** What a copy writes to. */
export type TargetStore = Exclude<NativeTargetStore, NativeWriter> | TargetWriter

/** What the calling program writes by itself. */
export interface TargetWriter extends Readonly<NativeWriter> {
  write(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void>
  zero?(offset: number, length: number, signal: AbortSignal): Promise<void>
  flush(signal: AbortSignal): Promise<void>
}

/** Bytes. */
export interface TargetSizes {
  /** The file's length, or what a device or an export holds. */
  fileSize: number
  /** What the file system gave it; a device has all of its own. */
  allocatedBytes: number
}

/**
 * Something that gets its name in steps, so that several get theirs together or none does: see
 * `publishAll`, which is what calls these. All throw BackupError.
 */
export interface Publication {
  /** As given, for messages. */
  readonly path: string
  /** Identity of the file that it replaces (SourceFile.identity); undefined if there is none. */
  readonly replaced?: string
  /** Makes durable what was written, under no name yet. */
  sync(): Promise<void>
  /**
   * Gives it its name, atomically; what had it is kept aside.
   * @throws BackupError TARGET_EXISTS if the name belongs to another file by now, IO
   */
  place(): Promise<void>
  /** Makes the name durable. */
  settle(): Promise<void>
  /**
   * Undoes `place`. Never fails.
   * @returns what stands under the name instead of what stood there; undefined if it is as it was
   */
  revert(): Promise<string | undefined>
  /**
   * Removes what was kept aside.
   * @returns what could not be, for the user to know
   */
  finish(): Promise<string | undefined>
  /** Releases everything, and removes what was not published. Never fails; may be called twice. */
  discard(): Promise<void>
}
