import type { Command } from 'commander'
import { REPORT_OPTIONS, readBitmapChain } from '../../api/bitmaps.ts'
import { BackupError } from '../../errors.ts'
import type { ChainReport } from '../../maintain/chain-report.ts'
import type { BitmapHealth, BitmapPlace } from '../../source/bitmaps/health.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
A bitmap is valid if TOP has it, the images that have it follow each other from there without a gap,
and in each of them it is recording and consistent: an incremental backup with it is then correct.
Where an image that has it is shorter than the disk, the range past its end counts as changed.
An image that a running VM has open is not a fault; its bitmaps are in the VM's memory.

Exit status: 0 every bitmap is valid, 1 one is not, or an image cannot be read.

Examples:
  qcow2-backup chain overlay.qcow2
  qcow2-backup chain --json overlay.qcow2 --allow-path /srv/base`

/** `chain TOP`: the health of the bitmaps along a backing chain. */
export function declare(command: Command, io: Io): void {
  command
    .description('Checks the dirty bitmaps of an image and of its backing chain.')
    .argument('<top>', 'the topmost qcow2 image')
  addOutputFlags(addFlags(command, REPORT_OPTIONS))
    .addHelpText('after', HELP)
    .action((top: string, flags: OutputFlags) => chain(io, top, flags))
}

async function chain(io: Io, top: string, flags: OutputFlags): Promise<void> {
  const report = await runWithProgress(io, flags, (control) =>
    readBitmapChain(top, { ...optionsFrom(flags, REPORT_OPTIONS), ...control }),
  )
  await printResult(io, flags, report, describe)
  const invalid = report.bitmaps.filter(({ valid }) => !valid).length
  if (invalid === 0) return
  const why = `${invalid} of ${report.bitmaps.length} bitmaps are not valid`
  throw new BackupError('BAD_BITMAP', top, why)
}

function describe({ images, bitmaps }: ChainReport): string[] {
  const lines = images.map(({ image, format, virtualSize, live }) => {
    const held = live ? ', open in another process' : ''
    return `${image}: ${format}, ${formatSize(virtualSize)}${held}`
  })
  if (bitmaps.length === 0) lines.push('no bitmaps')
  return [...lines, ...bitmaps.flatMap(describeBitmap)]
}

function describeBitmap({ name, valid, reasons, notes, images }: BitmapHealth): string[] {
  const places = images.filter(({ present }) => present).map(describePlace)
  return [
    `bitmap '${name}': ${valid ? 'valid' : 'NOT VALID'} (${places.join(', ')})`,
    ...[...reasons, ...notes].map((line) => `  ${line}`),
  ]
}

function describePlace({ image, recording, inconsistent, granularity }: BitmapPlace): string {
  const state = inconsistent ? 'inconsistent' : recording ? 'recording' : 'disabled'
  return `${image}: ${state}, ${formatSize(granularity!)}`
}
