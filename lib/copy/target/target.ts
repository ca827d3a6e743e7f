import type { FileHandle } from '../../files.ts'
import type { NativeTargetStore, NativeWriter } from '../../native.ts'

/** Where a copy writes. */
export interface Target extends Publication {
  readonly kind: 'file' | 'device' | 'nbd' | 'imageio' | 'custom'
  /** The store that the addon writes to. Closed by `discard`. */
  readonly store: TargetStore
  /** Of a file or a device, open for reading and writing. Closed by `discard`. */
  readonly handle?: FileHandle
  /** It is written in place; a file has no name before it is published. */
  readonly inPlace: boolean
  /** What an error of the copy says about what it left there, where nothing else shows it. */
  readonly unfinished?: string
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

/** A copy's target. */
export type TargetStore = Exclude<NativeTargetStore, NativeWriter> | TargetWriter

/** A target that the calling program writes. */
export interface TargetWriter extends Readonly<NativeWriter> {
  write(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void>
  zero?(offset: number, length: number, signal: AbortSignal): Promise<void>
  flush(signal: AbortSignal): Promise<void>
}

/** Bytes. */
export interface TargetSizes {
  /** Length of the file, or size of the device or export, bytes. */
  fileSize: number
  /** Blocks that the file system allocated, bytes; a device counts in full. */
  allocatedBytes: number
}

/**
 * Something that gets its name in steps, so that several get theirs together or none does: see
 * `publishAll`, their only caller. All throw BackupError.
 */
export interface Publication {
  /** As given, for messages. */
  readonly path: string
  /** Identity of the file that it replaces (SourceFile.identity); undefined if there is none. */
  readonly replaced?: string
  /** Syncs the data, before it gets its name. */
  sync(): Promise<void>
  /**
   * Gives it its name, atomically; the file that had it is kept aside.
   * @throws BackupError TARGET_EXISTS if the name belongs to another file by now, IO
   */
  place(): Promise<void>
  /** Makes the name durable. */
  settle(): Promise<void>
  /**
   * Undoes `place`. Never fails.
   * @returns the file now under the name, if it is not the old one; else undefined
   */
  revert(): Promise<string | undefined>
  /**
   * Removes the replaced file that was kept aside.
   * @returns files that could not be removed, for a note
   */
  finish(): Promise<string | undefined>
  /** Releases everything, and removes unpublished files. Never fails; may be called twice. */
  discard(): Promise<void>
}
