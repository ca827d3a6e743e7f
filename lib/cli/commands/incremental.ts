import type { Command } from 'commander'
import type { DiscardOptions, VerifyingOptions } from '../../backup/types.ts'
import { runCopy } from '../copy.ts'
import type { Io } from '../io.ts'
import {
  addCopyOptions,
  addDiscardOptions,
  addImageOptions,
  addSourceOptions,
  addVerifyingOptions,
  type CopyFlags,
  discardOptions,
  type ImageFlags,
  imageOptions,
  openOptions,
  type SourceFlags,
  verifyingOptions,
} from '../options.ts'

const HELP = `
SOURCE holds the bitmap: one of its own that is stored in it, or one that the NBD server offers.
PREVIOUS must hold the disk as it was when the bitmap began. TARGET records where PREVIOUS is,
relative to its own directory: move them together. TARGET appears only when it is complete.

Examples:
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2
  qcow2-backup incremental 'nbd+unix:///disk?socket=/run/nbd' monday.qcow2 --bitmap sunday \\
    --backing sunday.qcow2
  qcow2-backup restore monday.qcow2 disk.raw`

/** `incremental SOURCE TARGET --bitmap NAME --backing PREVIOUS`: what changed since PREVIOUS. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Backs up what changed since the previous backup into a new qcow2 image over that backup.',
    )
    .argument('<source>', 'qcow2 file, or NBD export')
    .argument('<target>', 'the qcow2 image to make')
    .option('--bitmap <name>', 'the dirty bitmap that tells what changed')
    .option('--backing <previous>', 'the previous backup: qcow2, or what --backing-format says')
    .option(
      '--no-shared-tables',
      'give every L2 table of zeroes a cluster of its own: for an image that a VM will write to',
    )
  addSourceOptions(command)
  addImageOptions(command)
  addDiscardOptions(command)
  addVerifyingOptions(command)
  addCopyOptions(command)
  command
    .addHelpText('after', HELP)
    .action((source: string, target: string, flags: Flags) =>
      incremental(io, source, target, flags),
    )
}

type Flags = SourceFlags &
  ImageFlags &
  DiscardOptions &
  VerifyingOptions &
  CopyFlags & { bitmap?: string; backing?: string; sharedTables: boolean }

async function incremental(io: Io, source: string, target: string, flags: Flags): Promise<void> {
  const { incrementalBackup } = await import('../../api/backup.ts')
  const { bitmap, backing } = flags
  await runCopy(io, flags, (options) =>
    incrementalBackup(source, target, {
      ...openOptions(flags),
      ...imageOptions(flags),
      ...discardOptions(flags),
      ...verifyingOptions(flags),
      ...options,
      sharedTables: flags.sharedTables,
      bitmap,
      // The library tells that it is missing.
      backing: backing as string,
    }),
  )
}
