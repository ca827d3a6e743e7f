import type { Command } from 'commander'
import {
  REPORT_IMAGE_OPTIONS,
  REPORT_REPOSITORY_OPTIONS,
  reportImage,
  reportRepository,
} from '../../api/report.ts'
import { argumentError } from '../../errors.ts'
import type { Finding } from '../../report/finding.ts'
import type { ImageReport } from '../../report/image/types.ts'
import type { Reported } from '../../report/publish.ts'
import type { RepositoryReport } from '../../report/repository/types.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'

const HELP = `
The page is one file that needs nothing else, no network and no other file. Of a repository it has the machines,
their points on a line of time, growth, chains, when what was verified, what calls for action, and with rules
(--keep-...) what the next prune would do. Of an image it has a map of the disk by layer, dirty bitmaps,
snapshots, fragmentation, and the health of the chain in words; tables are read, no content. --json prints
what the page shows.

Examples:
  qcow2-backup report --repo backups -o backups.html
  qcow2-backup report --repo backups -o backups.html --force --keep-daily 14 --keep-monthly 12
  qcow2-backup report disk.qcow2 -o disk.html
  qcow2-backup report overlay.qcow2 -o overlay.html --allow-path /srv/base --force`

const { output, force, signal: _1, onProgress: _2, ...POLICY } = REPORT_REPOSITORY_OPTIONS
const { output: _3, force: _4, signal: _5, onProgress: _6, ...IMAGE } = REPORT_IMAGE_OPTIONS
const PAGE = { output, force }

/** `report IMAGE|--repo DIR -o FILE.html`: a page about an image or a repository. */
export function declare(command: Command, io: Io): void {
  command
    .description('Makes a page that shows the state of a repository, or of an image and its chain.')
    .argument('[image]', 'the image; without --repo')
  addOutputFlags(addFlags(command, { ...REPOSITORY_OPTIONS, ...PAGE, ...POLICY, ...IMAGE }))
    .addHelpText('after', HELP)
    .action(async (image: string | undefined, flags: OutputFlags) => {
      const { repository } = optionsFrom(flags, REPOSITORY_OPTIONS)
      const page = optionsFrom(flags, PAGE)
      const target = requireOutput(page.output)
      const [policy, opening] = [optionsFrom(flags, POLICY), optionsFrom(flags, IMAGE)]
      if (image === undefined) {
        const repo = requireRepository(repository)
        refuse(opening, 'is for an image, not for a repository')
        const made = await runWithProgress(io, flags, (control) =>
          reportRepository(repo, { ...page, ...policy, ...control }),
        )
        await print(io, flags, target, made, repositoryLines)
      } else {
        if (repository !== undefined)
          throw argumentError('repository', 'cannot be combined with an image')
        refuse(policy, 'is for a repository, not for an image')
        const made = await runWithProgress(io, flags, (control) =>
          reportImage(image, { ...page, ...opening, ...control }),
        )
        await print(io, flags, target, made, imageLines)
      }
    })
}

/** @throws BackupError USAGE for an option that was given */
function refuse(options: object, why: string): void {
  for (const [key, value] of Object.entries(options)) {
    if (value !== undefined) throw argumentError(key, why)
  }
}

async function print<Report>(
  io: Io,
  flags: OutputFlags,
  target: string,
  { report, notes }: Reported<Report>,
  describe: (report: Report) => [words: string, ...findings: string[]],
): Promise<void> {
  await printResult(io, flags, { target, report, notes }, () => {
    const [words, ...lines] = describe(report)
    const caveats = (notes ?? []).map((note) => `note: ${note}`)
    return [`${target}: ${words}`, ...[...lines, ...caveats].map((line) => `  ${line}`)]
  })
}

/** @throws BackupError USAGE if there is none */
function requireOutput(output: string | undefined): string {
  if (output !== undefined) return output
  throw argumentError('output', 'missing; it names the page to make')
}

function imageLines(report: ImageReport): [string, ...string[]] {
  const { virtualSize, data, compressed, images, findings } = report
  const stored = `disk ${formatSize(virtualSize)}, ${formatSize(data + compressed)} data`
  return [`${count(images.length, 'image')}, ${stored}`, ...findings.flatMap(findingLine)]
}

function repositoryLines(report: RepositoryReport): [string, ...string[]] {
  const { machines, storedBytes, findings } = report
  const points = machines.reduce((sum, one) => sum + one.points.length, 0)
  const words = `${count(machines.length, 'machine')}, ${count(points, 'point')}`
  return [`${words}, ${formatSize(storedBytes)} stored`, ...findings.flatMap(findingLine)]
}

/** What calls for action. */
function findingLine({ level, text }: Finding): string[] {
  return level === 'fault' || level === 'warning' ? [`${level}: ${text}`] : []
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}
