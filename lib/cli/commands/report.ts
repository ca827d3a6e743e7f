import type { Command } from 'commander'
import { REPORT_IMAGE_OPTIONS, reportImage } from '../../api/report.ts'
import { argumentError } from '../../errors.ts'
import type { Finding } from '../../report/finding.ts'
import type { ImageReport } from '../../report/image/types.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
The page is one file that needs nothing else, no network and no other file. Of an image it has a map of the
disk by layer, dirty bitmaps, snapshots, fragmentation, and the health of the chain in words; tables are
read, no content. --json prints what the page shows.

Examples:
  qcow2-backup report disk.qcow2 -o disk.html
  qcow2-backup report overlay.qcow2 -o overlay.html --allow-path /srv/base --force`

/** `report IMAGE -o FILE.html`: a page about an image. */
export function declare(command: Command, io: Io): void {
  command
    .description('Makes a page that shows the state of an image and of all that it builds on.')
    .argument('<image>', 'the image')
  addOutputFlags(addFlags(command, REPORT_IMAGE_OPTIONS))
    .addHelpText('after', HELP)
    .action(async (image: string, flags: OutputFlags) => {
      const options = optionsFrom(flags, REPORT_IMAGE_OPTIONS)
      const target = requireOutput(options.output)
      const { report, notes } = await runWithProgress(io, flags, (control) =>
        reportImage(image, { ...options, ...control }),
      )
      await printResult(io, flags, { target, report, notes }, () => [
        `${target}: ${imageWords(report)}`,
        ...findingLines(report.findings),
        ...noteLines(notes),
      ])
    })
}

/** @throws BackupError USAGE if there is none */
function requireOutput(output: string | undefined): string {
  if (output !== undefined) return output
  throw argumentError('output', 'missing; it names the page to make')
}

function imageWords({ virtualSize, data, compressed, images }: ImageReport): string {
  const count = images.length === 1 ? '1 image' : `${images.length} images`
  return `${count}, disk ${formatSize(virtualSize)}, ${formatSize(data + compressed)} data`
}

/** What calls for action. */
function findingLines(findings: readonly Finding[]): string[] {
  return findings
    .filter(({ level }) => level === 'fault' || level === 'warning')
    .map(({ level, text }) => `  ${level}: ${text}`)
}

function noteLines(notes: readonly string[] = []): string[] {
  return notes.map((note) => `  note: ${note}`)
}
