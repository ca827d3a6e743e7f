import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import type { Extent } from '../../extents/extent.ts'
import type { ExtentsOptions, Source } from '../../source/source.ts'
import { addSourceOptions, openOptions, type SourceFlags } from '../options.ts'
import { formatExtents, print } from '../output.ts'
import { interruptible } from '../signals.ts'

const HELP = `
Prints [{"start","length","zero","hole"}, …] in bytes: ordered, contiguous, from 0 to the virtual
size, neighbours with equal flags merged. zero: reads as zero through the whole chain. hole: nothing
is stored for it.

Examples:
  qcow2-backup extents disk.raw
  qcow2-backup extents /dev/vg/lv --detect-zeroes
  qcow2-backup extents overlay.qcow2 --allow-path /srv/base`

type ExtentsFlags = SourceFlags & ExtentsOptions

/** `extents SOURCE`: where a disk holds data, as JSON. */
export function declare(command: Command): void {
  command
    .description('Prints which parts of a disk hold data, as a JSON array.')
    .argument('<source>', 'raw or qcow2 file, or block device')
  addSourceOptions(command)
  command
    .option('--detect-zeroes', 'read what is stored, to find zeroes in it')
    .option('--json', 'what is printed in any case')
    .addHelpText('after', HELP)
    .action(extents)
}

async function extents(location: string, flags: ExtentsFlags): Promise<void> {
  const { openSource } = await import('../../source/open.ts')
  await interruptible(async (signal) => {
    const source = await openSource(location, openOptions(flags))
    try {
      for await (const text of formatExtents(untilAborted(source, flags, signal))) await print(text)
    } finally {
      await source.close()
    }
  })
}

async function* untilAborted(
  source: Source,
  options: ExtentsOptions,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  for await (const extent of source.extents(options)) {
    if (signal.aborted) throw new BackupError('ABORTED', source.name, 'interrupted')
    yield extent
  }
}
