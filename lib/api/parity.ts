import { CHAIN_OPTIONS, CONTROL_OPTIONS, FORMAT, SHARE_OPTIONS } from '../options.ts'
import type { CommandComparison, ParityOptions } from '../parity/parity.ts'
import { checkOptions, option, ownArgument, PATH, type SchemaFor } from '../schema.ts'
import { Call } from './call.ts'
import { PATHS } from './rules.ts'

export const PARITY_OPTIONS: SchemaFor<ParityOptions> = {
  format: option(FORMAT, "the images' format", {
    letter: 'f',
    value: 'format',
    fallback: 'by their first bytes',
  }),
  against: option(PATH, 'the qemu-img to compare with', {
    value: 'program',
    fallback: 'the one in PATH',
  }),
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Runs our commands and qemu-img's on images, side by side, and compares their output byte for
 * byte, and their exit statuses. Yields as each pair is done. Output goes through files in the
 * system's temporary directory, so that any amount of it takes no memory.
 * @throws BackupError IO if qemu-img cannot be run, UNSUPPORTED if it reports no version, ABORTED, USAGE, CALLBACK
 */
export async function* compareWithQemuImg(
  images: readonly string[],
  options: ParityOptions = {},
): AsyncGenerator<CommandComparison, void, undefined> {
  const own = ownArgument('images', PATHS, images)
  const checked = checkOptions(PARITY_OPTIONS, options)
  const call = new Call(own[0] ?? 'images', checked.signal)
  const { compareWithQemuImg: run } = await import('../parity/parity.ts')
  const onProgress = call.callback('onProgress', checked.onProgress)
  yield* call.each(() => run(own, { ...checked, onProgress }))
}
