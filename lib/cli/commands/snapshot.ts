import type { Command } from 'commander'
import type { SnapshotResult } from '../../maintain/snapshot.ts'
import { oneLine } from '../../text.ts'
import { formatSize } from '../../units.ts'
import type { Io } from '../io.ts'
import { addClusterSize, addNamedFiles, type SourceFlags } from '../options.ts'

const HELP = `
BACKING must not be written to any more. Every bitmap that records in it and is valid along its chain
goes on in OVERLAY: an empty one of the same name and granularity. Disabled ones do not. OVERLAY
records where BACKING is, relative to its own directory.

Examples:
  qcow2-backup snapshot disk.qcow2 disk.snap1.qcow2
  qcow2-backup snapshot --force --json disk.qcow2 disk.snap1.qcow2`

interface SnapshotFlags extends SourceFlags {
  clusterSize?: number
  force?: boolean
  json?: boolean
}

/** `snapshot BACKING OVERLAY`: an overlay in which the bitmaps go on. */
export function declare(command: Command, io: Io): void {
  command
    .description('Makes an overlay over an image, in which its dirty bitmaps go on.')
    .argument('<backing>', 'qcow2 image, or raw as --backing-format says')
    .argument('<overlay>', 'the qcow2 image to make')
  addClusterSize(addNamedFiles(command))
    .option('--force', 'replace an overlay that exists; and let bitmaps end that are not valid')
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', HELP)
    .action((backing: string, overlay: string, flags: SnapshotFlags) =>
      snapshot(io, backing, overlay, flags),
    )
}

async function snapshot(
  io: Io,
  backing: string,
  overlay: string,
  flags: SnapshotFlags,
): Promise<void> {
  const { createSnapshot } = await import('../../api/maintain.ts')
  const { allowPath: allowPaths, backingFormat, clusterSize, force, json } = flags
  const options = { allowPaths, backingFormat, clusterSize, force }
  const result = await io.interruptible((signal) =>
    createSnapshot(backing, overlay, { ...options, signal }),
  )
  await io.stdout(json ? `${JSON.stringify(result)}\n` : describe(result))
}

function describe({ overlay, virtualSize, backing, bitmaps, notes }: SnapshotResult): string {
  const names = bitmaps.length > 0 ? bitmaps.map((name) => `'${oneLine(name)}'`).join(', ') : 'none'
  return [
    `${oneLine(overlay)}: complete`,
    `  disk ${formatSize(virtualSize)}, over ${oneLine(backing)}`,
    `  bitmaps that go on: ${names}`,
    ...notes.map((note) => `  note: ${oneLine(note)}`),
    '',
  ].join('\n')
}
