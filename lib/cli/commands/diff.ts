import { type Command, Option } from 'commander'
import type { DiffResult } from '../../image/diff/diff.ts'
import { formatSize } from '../../units.ts'
import { oneLine } from '../errors.ts'
import {
  addNamedFiles,
  addProgressOptions,
  type CopyFlags,
  type SourceFlags,
  size,
} from '../options.ts'
import { print } from '../print.ts'
import { openProgress } from '../progress.ts'
import { interruptible } from '../signals.ts'

const HELP = `
For a bitmap that was lost or never made: BASELINE is a known state of the disk, such as its last
backup. The bitmap that IMAGE gets has exactly those granules dirty in which the two differ, so that
an incremental backup by it over BASELINE is right. It is disabled unless --enable is given; with that
it records what is written from now on, too. What cannot be read counts as different.

Examples:
  qcow2-backup diff disk.qcow2 sunday.qcow2 --bitmap sunday
  qcow2-backup diff disk.qcow2 sunday.raw --bitmap sunday --granularity 4K --enable
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2`

interface DiffFlags extends SourceFlags, Pick<CopyFlags, 'json' | 'progress'> {
  bitmap?: string
  granularity?: number
  enable?: boolean
  baselineFormat?: 'raw' | 'qcow2'
}

/** `diff IMAGE BASELINE --bitmap NAME`: a bitmap of what differs. */
export function declare(command: Command): void {
  command
    .description('Adds a bitmap to an image: what differs from a known state of the disk.')
    .argument('<image>', 'the qcow2 image that gets the bitmap')
    .argument('<baseline>', 'a raw or qcow2 image')
    .option('--bitmap <name>', 'the name of the new bitmap')
    .option(
      '--granularity <size>',
      'what one bit stands for, 512 to 2G (default: the cluster size, 4K to 64K)',
      size('--granularity'),
    )
    .option('--enable', 'let the bitmap record what is written from now on')
    .addOption(
      new Option(
        '--baseline-format <format>',
        'the format of BASELINE (default: by its magic)',
      ).choices(['raw', 'qcow2']),
    )
    .option('--json', 'print the result as one JSON object')
  addProgressOptions(addNamedFiles(command)).addHelpText('after', HELP).action(diff)
}

async function diff(image: string, baseline: string, flags: DiffFlags): Promise<void> {
  const { diffToBitmap } = await import('../../image/diff/diff.ts')
  const { bitmap = '', granularity, enable, baselineFormat, backingFormat, allowPath } = flags
  const progress = await openProgress(flags.progress)
  const started = performance.now()
  const onProgress = (position: number, size: number) => {
    const elapsedSeconds = (performance.now() - started) / 1000
    progress.update({ phase: 'compare', position, size, dataBytes: 0, elapsedSeconds })
  }
  const result = await interruptible(async (signal) => {
    const options = { granularity, enable, baselineFormat, backingFormat, allowPaths: allowPath }
    try {
      return await diffToBitmap(image, baseline, bitmap, { ...options, signal, onProgress })
    } finally {
      progress.close()
    }
  })
  await print(flags.json ? `${JSON.stringify(result)}\n` : describe(result))
}

function describe({ image, bitmap, granularity, dirtyBytes, unreadable }: DiffResult): string {
  const made = `bitmap '${oneLine(bitmap)}', ${formatSize(granularity)} a bit`
  return [
    `${oneLine(image)}: ${made}, ${formatSize(dirtyBytes)} dirty`,
    ...unreadable.map(({ start, length, side, why }) => {
      const of = side === 0 ? 'the image' : 'the baseline'
      return `  could not read ${length} bytes at ${start} of ${of}, which count as different: ${why}`
    }),
    '',
  ].join('\n')
}
