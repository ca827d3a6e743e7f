import type { Command } from 'commander'
import { createSnapshot, SNAPSHOT_OPTIONS } from '../../api/maintain.ts'
import type { SnapshotResult } from '../../maintain/create-snapshot.ts'
import { BOOLEAN, option } from '../../schema.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'

const HELP = `
BACKING must not be written to any more. Every bitmap of BACKING that is recording and valid along its
chain continues in OVERLAY, as an empty one of the same name and granularity. Disabled ones do not.
OVERLAY records the path of BACKING relative to its own directory.

Examples:
  qcow2-backup snapshot disk.qcow2 disk.snap1.qcow2
  qcow2-backup snapshot --force --json disk.qcow2 disk.snap1.qcow2`

const OPTIONS = {
  ...SNAPSHOT_OPTIONS,
  force: option(BOOLEAN, 'replace an overlay that exists; drop bitmaps that are not valid'),
}

/** `snapshot BACKING OVERLAY`: an overlay in which the bitmaps continue. */
export function declare(command: Command, io: Io): void {
  command
    .description('Makes an overlay over an image, in which its dirty bitmaps continue.')
    .argument('<backing>', 'qcow2 image, or raw as --backing-format says')
    .argument('<overlay>', 'the qcow2 image to make')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action((backing: string, overlay: string, flags: OutputFlags) =>
      snapshot(io, backing, overlay, flags),
    )
}

async function snapshot(
  io: Io,
  backing: string,
  overlay: string,
  flags: OutputFlags,
): Promise<void> {
  const result = await runWithProgress(io, flags, (control) =>
    createSnapshot(backing, overlay, { ...optionsFrom(flags, OPTIONS), ...control }),
  )
  await printResult(io, flags, result, describe)
}

function describe({ overlay, virtualSize, backing, bitmaps, notes }: SnapshotResult): string[] {
  const names = bitmaps.length > 0 ? bitmaps.map((name) => `'${name}'`).join(', ') : 'none'
  return [
    `${overlay}: complete`,
    `  disk ${formatSize(virtualSize)}, over ${backing}`,
    `  bitmaps that continue: ${names}`,
    ...notes.map((note) => `  note: ${note}`),
  ]
}
