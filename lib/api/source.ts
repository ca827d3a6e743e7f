import { shownLocation } from '../imageio/client/address.ts'
import { CONTROL_OPTIONS, OPEN_OPTIONS } from '../options.ts'
import { BOOLEAN, checkOptions, option, ownArgument, type SchemaFor } from '../schema.ts'
import type { CustomSource } from '../source/custom-source.ts'
import type { OpenOptions } from '../source/open-source.ts'
import type { ExtentsOptions, Source } from '../source/source.ts'
import { Call } from './call.ts'
import { SOURCE } from './rules.ts'

/** Options of `openSource`. */
export interface OpenSourceOptions extends Omit<OpenOptions, 'requests'> {
  /** Cancels work with the source: opening it, and reading its extents. */
  signal?: AbortSignal
}

export const SOURCE_OPTIONS = { ...OPEN_OPTIONS, signal: CONTROL_OPTIONS.signal } as const

export const EXTENTS_OPTIONS: SchemaFor<ExtentsOptions> = {
  detectZeroes: option(BOOLEAN, 'read the stored data, to find zeroes in it'),
  onProgress: CONTROL_OPTIONS.onProgress,
}

/**
 * Opens a disk for reading: a raw or qcow2 image, in a file or on a block device, with all that it
 * builds on, an export of an NBD server, an image of an imageio server, or a custom source.
 * @param location a path, an NBD URI, the URL of an image, or a source of the program's own
 * @throws BackupError USAGE, BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED (by the gate),
 * IN_USE, IO or ABORTED
 */
export async function openSource(
  location: string | CustomSource,
  options: OpenSourceOptions = {},
): Promise<Source> {
  const own = ownArgument('source', SOURCE, location)
  const { signal, ...checked } = checkOptions(SOURCE_OPTIONS, options)
  const name = typeof own === 'string' ? shownLocation(own) : own.name
  const call = new Call(name, signal)
  const { openSource: open } = await import('../source/open-source.ts')
  const source = await call.run(() => open(own, { ...checked, signal }))
  return {
    ...source,
    // Grows while the source is asked.
    get notes() {
      return source.notes
    },
    discarding: (granule) => source.discarding(granule),
    extents: (how?: ExtentsOptions) => {
      const { detectZeroes, onProgress } = checkOptions(EXTENTS_OPTIONS, how)
      const told = call.callback('onProgress', onProgress)
      return call.each(() => source.extents({ detectZeroes, onProgress: told }))
    },
    mappings: () => call.each(() => source.mappings()),
    dirtyMappings: () => call.each(() => source.dirtyMappings()),
    checkUnchanged: () => call.run(() => source.checkUnchanged()),
    // Also after an abort.
    close: () => new Call(name).run(() => source.close()),
  }
}
