import type { Command } from 'commander'
import { EXTENTS_OPTIONS, openSource, SOURCE_OPTIONS } from '../../api/source.ts'
import { argumentError } from '../../errors.ts'
import { alignDirty, type DirtyExtent, mergeDirty } from '../../extents/dirty-extents.ts'
import { SECTOR_SIZE } from '../../format/qcow2/constants.ts'
import type { Progress } from '../../progress.ts'
import { option, TEXT } from '../../schema.ts'
import { withProgress } from '../../source/look-up-progress.ts'
import type { Source } from '../../source/source.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { formatExtents } from '../output.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { humanLines } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
Prints [{"start","length","zero","hole"}, …] in bytes: ordered, contiguous, from 0 to the virtual
size, neighbours with equal flags merged. zero: reads as zero through the whole chain. hole: nothing
is stored for it. With --bitmap [{"start","length","dirty","zero"}, …]. dirty: written since the
bitmap was added. Caveats, such as a server that does not report where data is, are printed on
stderr.

Examples:
  qcow2-backup extents disk.raw
  qcow2-backup extents /dev/vg/lv --detect-zeroes
  qcow2-backup extents overlay.qcow2 --allow-path /srv/base
  qcow2-backup extents 'nbd+unix:///disk?socket=/run/nbd' --bitmap sunday
  qcow2-backup extents https://kvm1:54322/images/TICKET --bitmap dirty --ca ca.pem`

const OPTIONS = {
  ...SOURCE_OPTIONS,
  bitmap: option(TEXT, 'also print which parts a dirty bitmap has as dirty'),
  ...EXTENTS_OPTIONS,
}

/** `extents SOURCE`: where a disk holds data, as JSON. */
export function declare(command: Command, io: Io): void {
  command
    .description('Prints which parts of a disk hold data, as a JSON array.')
    .argument('<source>', 'raw or qcow2 file, block device, NBD export, or imageio URL')
  addOutputFlags(addFlags(command, OPTIONS), 'accepted as everywhere; the output is always JSON')
    .addHelpText('after', HELP)
    .action((location: string, flags: OutputFlags) => extents(io, location, flags))
}

async function extents(io: Io, location: string, flags: OutputFlags): Promise<void> {
  const { detectZeroes, ...options } = optionsFrom(flags, OPTIONS)
  const { bitmap } = options
  if (bitmap !== undefined && detectZeroes) {
    throw argumentError('detectZeroes', 'cannot be combined with a bitmap')
  }
  await runWithProgress(io, flags, async ({ signal, onProgress }, display) => {
    const source = await openSource(location, { ...options, signal })
    try {
      const list =
        bitmap === undefined
          ? source.extents({ detectZeroes, onProgress })
          : dirtyExtents(source, onProgress)
      for await (const text of formatExtents(list)) await display.around(() => io.stdout(text))
      // Complete only now: some are of answers that came meanwhile.
      for (const note of [...(source.bitmap?.notes ?? []), ...(source.notes ?? [])]) {
        display.say(humanLines([`qcow2-backup: ${source.name}: note: ${note}`]))
      }
    } finally {
      await source.close()
    }
  })
}

/** The mappings of a source as extents, in whole sectors. */
function dirtyExtents(
  source: Source,
  onProgress: (progress: Progress) => void,
): AsyncGenerator<DirtyExtent> {
  const batches = withProgress(dirtyBatches(source), source.size, onProgress)
  return mergeDirty(alignDirty(batches, SECTOR_SIZE))
}

async function* dirtyBatches(source: Source): AsyncGenerator<DirtyExtent[]> {
  for await (const batch of source.dirtyMappings()) {
    yield batch.map(({ kind, start, length, dirty }) => {
      return { start, length, dirty, zero: kind === 'zero' || kind === 'hole' }
    })
  }
}
