import { type Command, Option } from 'commander'
import { usageError } from '../../errors.ts'
import type { Differences, DiffResult } from '../../maintain/diff/diff.ts'
import type { UnreadableArea } from '../../maintain/diff/differences.ts'
import { oneLine } from '../../text.ts'
import { formatSize } from '../../units.ts'
import type { Io } from '../io.ts'
import {
  addFormats,
  addNbdOptions,
  addProgressOptions,
  type CopyFlags,
  openOptions,
  type SourceFlags,
  size,
} from '../options.ts'
import { openProgress } from '../progress.ts'

const HELP = `
For a bitmap that was lost or never made: BASELINE is a known state of the disk, such as its last
backup. The bitmap that IMAGE gets has exactly those granules dirty in which the two differ, so that
an incremental backup by it over BASELINE is right. It is disabled unless --enable is given; with that
it records what is written from now on, too. What cannot be read counts as different.

With --output or --merge-into nothing is added to IMAGE, which may then be an NBD URI: a point in time
that a running QEMU exports. The file gets a JSON array of {start, length, dirty} from 0 to the size
of the disk; - is the standard output.

Examples:
  qcow2-backup diff disk.qcow2 sunday.qcow2 --bitmap sunday
  qcow2-backup diff disk.qcow2 sunday.raw --bitmap sunday --granularity 4K --enable
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2
  qcow2-backup diff nbd+unix:///disk?socket=/run/vm.sock sunday.qcow2 --output changes.json
  qcow2-backup diff nbd://host/disk sunday.qcow2 --merge-into bits.qcow2 --bitmap sunday`

interface DiffFlags extends SourceFlags, Pick<CopyFlags, 'json' | 'progress' | 'force'> {
  bitmap?: string
  granularity?: number
  enable?: boolean
  baselineFormat?: 'raw' | 'qcow2'
  output?: string
  mergeInto?: string
}

/** `diff IMAGE BASELINE`: a bitmap, or a list, of what differs. */
export function declare(command: Command, io: Io): void {
  command
    .description('Finds what differs from a known state of the disk, and makes a bitmap of it.')
    .argument('<image>', 'the qcow2 image that gets the bitmap, or an NBD URI')
    .argument('<baseline>', 'a raw or qcow2 image, or an NBD URI')
    .option('--bitmap <name>', 'the name of the new bitmap, or of the one to merge into')
    .option('--output <file>', 'write what differs to a new file, as JSON')
    .option('--merge-into <image>', 'add what differs to a bitmap of another image')
    .option('--force', 'replace an output file that exists')
    .option(
      '--granularity <size>',
      'what one bit stands for, 512 to 2G (default: the cluster size, 4K to 64K)',
      size('--granularity'),
    )
    .option('--enable', 'let the new bitmap record what is written from now on')
    .addOption(
      new Option(
        '--baseline-format <format>',
        'the format of BASELINE (default: by its magic)',
      ).choices(['raw', 'qcow2']),
    )
    .option('--json', 'print the result as one JSON object')
  addProgressOptions(addNbdOptions(addFormats(command, 'by its magic')))
    .addHelpText('after', HELP)
    .action((image: string, baseline: string, flags: DiffFlags) => diff(io, image, baseline, flags))
}

async function diff(io: Io, image: string, baseline: string, flags: DiffFlags): Promise<void> {
  const api = await import('../../api/maintain.ts')
  const { bitmap = '', granularity, enable, output, mergeInto, baselineFormat } = flags
  const elsewhere = output !== undefined || mergeInto !== undefined
  requireTogether(flags, elsewhere)
  const printer = output === '-' ? listPrinter(io) : undefined
  const file = printer ? undefined : output
  const result = await io.interruptible(async (signal) => {
    const progress = await openProgress(flags.progress, io)
    const onProgress = progress.update
    const { format, ...access } = openOptions(flags)
    const options = { ...access, granularity, baselineFormat, signal, onProgress }
    try {
      if (!elsewhere) return await api.diffToBitmap(image, baseline, bitmap, { ...options, enable })
      const into = mergeInto === undefined ? undefined : { image: mergeInto, bitmap }
      const found = { ...options, format, mergeInto: into, output: file, force: flags.force }
      const differences = await api.diffDisks(image, baseline, found, (runs) => printer?.add(runs))
      await printer?.end()
      return { image, ...(output === undefined ? {} : { output }), ...differences }
    } finally {
      progress.close()
    }
  })
  if (output === '-') return
  await io.stdout(flags.json ? `${JSON.stringify(result)}\n` : describe(result))
}

function requireTogether(flags: DiffFlags, elsewhere: boolean): void {
  const { bitmap, mergeInto, enable, format, force, output } = flags
  if (mergeInto !== undefined && !bitmap) {
    throw usageError('--bitmap', 'missing; it names the bitmap to merge into')
  }
  if (mergeInto === undefined && elsewhere && bitmap !== undefined) {
    throw usageError('--bitmap', 'goes with --merge-into, or without --output')
  }
  if (elsewhere && enable) throw usageError('--enable', 'only goes with a bitmap of IMAGE itself')
  if (!elsewhere && format === 'raw') {
    throw usageError('--format', 'a raw image holds no bitmaps; --output writes what differs')
  }
  if (output === undefined && force) throw usageError('--force', 'only goes with --output')
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

function describe(result: DiffResult | (Differences & { image: string; output?: string })): string {
  const { image, granularity, dirtyBytes, unreadable } = result
  const what = 'bitmap' in result ? `bitmap '${oneLine(result.bitmap)}', ` : ''
  const made = `${what}${formatSize(granularity)} a bit`
  return [
    `${oneLine(image)}: ${made}, ${formatSize(dirtyBytes)} dirty`,
    ...unreadable.map((area) => `  ${describeUnreadable(area)}`),
    '',
  ].join('\n')
}

function describeUnreadable({ start, length, side, why }: UnreadableArea): string {
  const of = side === 0 ? 'the image' : 'the baseline'
  return `could not read ${length} bytes at ${start} of ${of}, which count as different: ${why}`
}
