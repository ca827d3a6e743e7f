import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import type { Extent } from '../../extents/extent.ts'
import type { Source } from '../../source/source.ts'
import { addSourceOptions, openOptions, type SourceFlags } from '../options.ts'
import { formatExtents, print } from '../output.ts'
import { interruptible } from '../signals.ts'

const HELP = `
Prints [{"start","length","zero","hole"}, …] in bytes: ordered, contiguous, from 0 to the virtual
size, neighbours with equal flags merged. zero: reads as zero through the whole chain. hole: nothing
is stored for it.

Examples:
  qcow2-backup extents disk.raw
  qcow2-backup extents overlay.qcow2 --allow-path /srv/base`

/** `extents SOURCE`: where a disk holds data, as JSON. */
export function declare(command: Command): void {
  command
    .description('Prints which parts of a disk hold data, as a JSON array.')
    .argument('<source>', 'raw or qcow2 file, or block device')
  addSourceOptions(command)
  command.option('--json', 'what is printed in any case').addHelpText('after', HELP).action(extents)
}

async function extents(location: string, flags: SourceFlags): Promise<void> {
  const { openSource } = await import('../../source/open.ts')
  await interruptible(async (signal) => {
    const source = await openSource(location, openOptions(flags))
    try {
      for await (const text of formatExtents(untilAborted(source, signal))) await print(text)
    } finally {
      await source.close()
    }
  })
}

async function* untilAborted(source: Source, signal: AbortSignal): AsyncGenerator<Extent> {
  for await (const extent of source.extents()) {
    if (signal.aborted) throw new BackupError('ABORTED', source.name, 'interrupted')
    yield extent
  }
}
