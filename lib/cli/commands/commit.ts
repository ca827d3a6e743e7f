import type { Command } from 'commander'
import type { CommitResult } from '../../maintain/commit/commit.ts'
import { oneLine } from '../../text.ts'
import { formatSize } from '../../units.ts'
import type { Io } from '../io.ts'
import {
  addNamedFiles,
  addProgressOptions,
  type CopyFlags,
  rateLimit,
  type SourceFlags,
} from '../options.ts'
import { openProgress } from '../progress.ts'

const HELP = `
What TOP holds, and what the images between it and BASE hold, data and zeroes alike, goes into BASE,
which grows if TOP is larger. Then the bitmaps: those of TOP that are valid along the chain are made in
BASE where it lacks them, and get what they have in all of the images, no more. TOP is not written to,
so a commit that was interrupted can be run again. Nobody may use any of the images meanwhile, and
other overlays over BASE are of no use afterwards.

Examples:
  qcow2-backup commit disk.snap1.qcow2
  qcow2-backup commit disk.snap3.qcow2 --base disk.qcow2 --delete`

interface CommitFlags extends SourceFlags, Pick<CopyFlags, 'json' | 'progress' | 'rateLimit'> {
  base?: string
  delete?: boolean
}

/** `commit TOP [--base BASE]`: brings overlays down into the image below, bitmaps and all. */
export function declare(command: Command, io: Io): void {
  command
    .description('Brings the content and the bitmaps of overlays down into the image below them.')
    .argument('<top>', 'the qcow2 image to commit')
    .option('--base <image>', 'the image of its chain that gets it all (default: the next one)')
    .option('--delete', 'remove TOP and what is between it and BASE, once all is done')
    .addOption(rateLimit())
    .option('--json', 'print the result as one JSON object')
  addProgressOptions(addNamedFiles(command))
    .addHelpText('after', HELP)
    .action((top: string, flags: CommitFlags) => commit(io, top, flags))
}

async function commit(io: Io, top: string, flags: CommitFlags): Promise<void> {
  const { commitImage } = await import('../../api/maintain.ts')
  const { allowPath: allowPaths, backingFormat, base } = flags
  const progress = await openProgress(flags.progress, io)
  const result = await io.interruptible(async (signal) => {
    const { delete: remove, rateLimit } = flags
    const options = { allowPaths, backingFormat, base, delete: remove, rateLimit }
    try {
      return await commitImage(top, {
        ...options,
        signal,
        onProgress: (now) => progress.update(now),
      })
    } finally {
      progress.close()
    }
  })
  await io.stdout(flags.json ? `${JSON.stringify(result)}\n` : describe(result))
}

function describe(result: CommitResult): string {
  const { base, virtualSize, dataBytes, zeroBytes, merged, created, deleted, notes } = result
  const listed = (names: string[]) => names.map((name) => oneLine(name)).join(', ')
  const what = `${formatSize(dataBytes)} of data and ${formatSize(zeroBytes)} of zeroes`
  return [
    `${oneLine(base)}: complete`,
    `  disk ${formatSize(virtualSize)}; committed: ${what}`,
    ...(merged.length > 0 ? [`  bitmaps merged: ${listed(merged)}`] : []),
    ...(created.length > 0 ? [`  bitmaps added: ${listed(created)}`] : []),
    ...(deleted.length > 0 ? [`  removed: ${listed(deleted)}`] : []),
    ...notes.map((note) => `  note: ${oneLine(note)}`),
    '',
  ].join('\n')
}
