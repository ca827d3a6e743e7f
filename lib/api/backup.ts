import type {
  CopyOptions,
  CopyResult,
  FullOptions,
  IncrementalOptions,
  RestoreOptions,
} from '../backup/types.ts'
import type { CustomTarget } from '../copy/target/custom-target.ts'
import { shownLocation } from '../imageio/client/address.ts'
import {
  COPY_OPTIONS,
  DISCARD_OPTIONS,
  FORMAT,
  IMAGE_OPTIONS,
  OPEN_OPTIONS,
  TABLE_OPTIONS,
  VERIFYING_OPTIONS,
} from '../options.ts'
import {
  BOOLEAN,
  checkArgument,
  checkOptions,
  option,
  ownArgument,
  PATH,
  type Rule,
  type Schema,
  type SchemaFor,
} from '../schema.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { Call } from './call.ts'
import { ANY_TARGET, SOURCE, TARGET } from './rules.ts'

export const FULL_OPTIONS: SchemaFor<FullOptions> = {
  ...OPEN_OPTIONS,
  ...IMAGE_OPTIONS,
  ...DISCARD_OPTIONS,
  ...VERIFYING_OPTIONS,
  ...COPY_OPTIONS,
}

/** A bitmap covers the writes up to now, not up to a snapshot. */
const { snapshot: _, ...SINCE_OPTIONS } = FULL_OPTIONS

export const INCREMENTAL_OPTIONS: SchemaFor<IncrementalOptions> = {
  backing: option(PATH, 'the previous backup: qcow2, or the format of --backing-format', {
    value: 'previous',
  }),
  ...SINCE_OPTIONS,
  ...TABLE_OPTIONS,
}

export const RESTORE_OPTIONS: SchemaFor<RestoreOptions> = {
  outputFormat: option(FORMAT, "the target's format", {
    letter: 'O',
    value: 'format',
    fallback: 'raw',
  }),
  noHole: option(BOOLEAN, 'have the NBD server allocate space for zeroes, too'),
  verify: option(
    BOOLEAN,
    'check every image of the chain against its own manifest, or record, first',
    {
      off: 'compare with no manifest or record',
    },
  ),
  ...OPEN_OPTIONS,
  format: { ...OPEN_OPTIONS.format, fallback: 'qcow2' },
  ...IMAGE_OPTIONS,
  ...COPY_OPTIONS,
}

/**
 * Backs up a whole disk into a new, standalone qcow2 image. Zeroes, as read through the source's
 * whole chain, take no space in it.
 * @param source path of a raw or qcow2 image or of a block device, an NBD URI, the URL of an image of an
 * imageio server, or a custom source
 * @param target path of the image, mode 0600; it appears there only when complete and synced. A custom
 * target gets the raw disk
 * @throws BackupError; an existing target is then unchanged
 */
export function fullBackup(
  source: string | CustomSource,
  target: string | CustomTarget,
  options: FullOptions = {},
): Promise<CopyResult> {
  const rules = { target: ANY_TARGET, options: FULL_OPTIONS }
  return copy(source, target, rules, options, async (from, to, checked) => {
    const { fullBackup: run } = await import('../backup/full.ts')
    return await run(from, to, checked)
  })
}

/**
 * Backs up the changes since the previous backup, as recorded by a dirty bitmap, into a new qcow2 image
 * over that backup. Ranges that were written since and read as zero now become zero clusters, unread.
 * @param source a qcow2 image that holds the bitmap, an NBD export that offers it, an image of an imageio
 * server whose ticket has one, or a custom source, whose extents carry `dirty`
 * @param target path of the image, mode 0600; it appears there only when complete and synced
 * @throws BackupError; an existing target is then unchanged
 */
export function incrementalBackup(
  source: string | CustomSource,
  target: string,
  options: IncrementalOptions,
): Promise<CopyResult> {
  const rules = { target: TARGET, options: INCREMENTAL_OPTIONS }
  return copy(source, target, rules, options, async (from, to, checked) => {
    const { incrementalBackup: run } = await import('../backup/incremental.ts')
    return await run(from, to, checked)
  })
}

/**
 * Writes the content of a backup, with its whole chain, to a new disk.
 * @param backup path of a qcow2 image. Not recognised by its content: a backup whose first bytes
 * are damaged must not pass for a raw disk; `format: 'raw'` allows one
 * @param target path of a new sparse file, a block device, with `outputFormat: 'qcow2'` of a new image, or
 * the URI of an NBD export or the URL of an image of an imageio server, which is overwritten; or a custom
 * target
 * @throws BackupError; an existing target is then unchanged, except one that is written in place
 */
export async function restore(
  backup: string,
  target: string | CustomTarget,
  options: RestoreOptions = {},
): Promise<CopyResult> {
  checkArgument('backup', PATH, backup)
  const rules = { target: ANY_TARGET, options: RESTORE_OPTIONS }
  return await copy(backup, target, rules, options, async (_from, to, checked) => {
    const { restore: run } = await import('../backup/restore.ts')
    return await run(backup, to, checked)
  })
}

async function copy<O extends CopyOptions, T extends string | CustomTarget>(
  source: string | CustomSource,
  target: T,
  rules: { target: Rule<string> | Rule<string | CustomTarget>; options: Schema },
  options: O,
  run: (source: string | CustomSource, target: T, checked: O) => Promise<CopyResult>,
): Promise<CopyResult> {
  const ownSource = ownArgument('source', SOURCE, source)
  const ownTarget = ownArgument<string | CustomTarget>('target', rules.target, target) as T
  const checked = checkOptions(rules.options, options) as O
  const name = typeof ownTarget === 'string' ? shownLocation(ownTarget) : ownTarget.name
  const call = new Call(name, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const [from, to] = [call.source(ownSource), call.target(ownTarget)]
  return await call.run(async () => {
    try {
      return await call.noted(await run(from, to, Object.assign(checked, { onProgress })))
    } finally {
      // For a copy that failed before it opened them.
      if (typeof from !== 'string') await from.close?.()
      if (typeof to !== 'string') await Promise.resolve(to.close?.()).catch(() => {})
    }
  })
}
