import type { Command } from 'commander'
import { COMMIT_OPTIONS, commitImage } from '../../api/maintain.ts'
import type { CommitResult } from '../../maintain/commit/commit.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
The content of TOP and of the images between it and BASE, data and zeroes alike, is written to BASE,
which grows if TOP is larger. Then the bitmaps: those of TOP that are valid along the chain are added
to BASE where it lacks them, and merged from all of the images. TOP is not written to, so an
interrupted commit can be run again. No other process may use any of the images meanwhile, and other
overlays over BASE are invalid afterwards.

Examples:
  qcow2-backup commit disk.snap1.qcow2
  qcow2-backup commit disk.snap3.qcow2 --base disk.qcow2 --delete`

/** `commit TOP [--base BASE]`: merges overlays into the image below them, with their bitmaps. */
export function declare(command: Command, io: Io): void {
  command
    .description('Merges the content and the bitmaps of overlays into the image below them.')
    .argument('<top>', 'the qcow2 image to commit')
  addOutputFlags(addFlags(command, COMMIT_OPTIONS))
    .addHelpText('after', HELP)
    .action((top: string, flags: OutputFlags) => commit(io, top, flags))
}

async function commit(io: Io, top: string, flags: OutputFlags): Promise<void> {
  const result = await runWithProgress(io, flags, (control) =>
    commitImage(top, { ...optionsFrom(flags, COMMIT_OPTIONS), ...control }),
  )
  await printResult(io, flags, result, describe)
}

function describe(result: CommitResult): string[] {
  const { base, virtualSize, dataBytes, zeroBytes, merged, created, deleted, notes } = result
  const what = `${formatSize(dataBytes)} of data and ${formatSize(zeroBytes)} of zeroes`
  return [
    `${base}: complete`,
    `  disk ${formatSize(virtualSize)}; committed: ${what}`,
    ...(merged.length > 0 ? [`  bitmaps merged: ${merged.join(', ')}`] : []),
    ...(created.length > 0 ? [`  bitmaps added: ${created.join(', ')}`] : []),
    ...(deleted.length > 0 ? [`  removed: ${deleted.join(', ')}`] : []),
    ...notes.map((note) => `  note: ${note}`),
  ]
}
