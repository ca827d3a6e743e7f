import type { Command } from 'commander'
import { DIFF_DISKS_OPTIONS, DIFF_OPTIONS, diffDisks, diffToBitmap } from '../../api/maintain.ts'
import { argumentError } from '../../errors.ts'
import type { Differences, DiffResult } from '../../maintain/diff/diff.ts'
import type { UnreadableRange } from '../../maintain/diff/differences.ts'
import { option, TEXT } from '../../schema.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
For a bitmap that was lost or never made: BASELINE is a known state of the disk, such as its last
backup. The new bitmap of IMAGE has exactly those granules dirty in which the two differ, so that an
incremental backup with it over BASELINE is correct. It is disabled unless --enable is given; then it
also records writes from now on. Ranges that cannot be read count as different.

With --output or --merge-into nothing is added to IMAGE, which may then be an NBD URI: a point in time
that a running QEMU exports. The file gets a JSON array of {start, length, dirty} from 0 to the size
of the disk; - is the standard output.

Examples:
  qcow2-backup diff disk.qcow2 sunday.qcow2 --bitmap sunday
  qcow2-backup diff disk.qcow2 sunday.raw --bitmap fine --granularity 4K --enable
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2
  qcow2-backup diff 'nbd+unix:///disk?socket=/run/vm.sock' sunday.qcow2 --output changes.json
  qcow2-backup diff nbd://host/disk sunday.qcow2 --merge-into bits.qcow2 --bitmap sunday`

const OPTIONS = {
  ...DIFF_DISKS_OPTIONS,
  ...DIFF_OPTIONS,
  bitmap: option(TEXT, 'the new bitmap, or the one to merge into'),
}

/** `diff IMAGE BASELINE`: a bitmap, or a list, of the differences. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Compares a disk with a known state of it, and stores the differences as a bitmap.',
    )
    .argument('<image>', 'the qcow2 image that gets the bitmap, or an NBD URI')
    .argument('<baseline>', 'a raw or qcow2 image, or an NBD URI')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action((image: string, baseline: string, flags: OutputFlags) =>
      diff(io, image, baseline, flags),
    )
}

async function diff(io: Io, image: string, baseline: string, flags: OutputFlags): Promise<void> {
  const { enable, force, bitmap, output, mergeInto, ...options } = optionsFrom(flags, OPTIONS)
  if (output === undefined && mergeInto === undefined) {
    if (force) throw argumentError('force', 'can only be combined with --output')
    const result = await runWithProgress(io, flags, (control) =>
      diffToBitmap(image, baseline, bitmap ?? '', { ...options, enable, ...control }),
    )
    return await printResult(io, flags, result, describe)
  }
  if (enable) throw argumentError('enable', 'cannot be combined with --output or --merge-into')
  const printer = output === '-' ? listPrinter(io) : undefined
  const where = { output: printer ? undefined : output, force, mergeInto, bitmap }
  const found = await runWithProgress(io, flags, async (control) => {
    const take = printer?.add
    const differences = await diffDisks(image, baseline, { ...options, ...where, ...control, take })
    await printer?.end()
    return differences
  })
  if (printer) return
  const result = { image, ...(output === undefined ? {} : { output }), ...found }
  await printResult(io, flags, result, describe)
}

/** A JSON array on the standard output, one run to a line. */
function listPrinter(io: Io) {
  let before = '['
  return {
    async add(runs: readonly object[]) {
      if (runs.length === 0) return
      await io.stdout(before + runs.map((run) => JSON.stringify(run)).join(',\n '))
      before = ',\n '
    },
    end: () => io.stdout(before === '[' ? '[]\n' : ']\n'),
  }
}

type Result = DiffResult | (Differences & { image: string; output?: string })

function describe(result: Result): string[] {
  const { image, granularity, dirtyBytes, unreadable } = result
  const notes = 'notes' in result && result.notes ? result.notes : []
  const what = 'bitmap' in result ? `bitmap '${result.bitmap}', ` : ''
  const made = `${what}${formatSize(granularity)} a bit`
  return [
    `${image}: ${made}, ${formatSize(dirtyBytes)} dirty`,
    ...unreadable.map((area) => `  ${describeUnreadable(area)}`),
    ...notes.map((note) => `  note: ${note}`),
  ]
}

function describeUnreadable({ start, length, side, why }: UnreadableRange): string {
  const of = side === 0 ? 'the image' : 'the baseline'
  return `could not read ${length} bytes at ${start} of ${of}, which count as different: ${why}`
}
