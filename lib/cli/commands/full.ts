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
What reads as zero takes no room in TARGET. TARGET appears under its name only when it is complete.

Examples:
  qcow2-backup full disk.raw backup.qcow2
  qcow2-backup full --verify --manifest disk.raw backup.qcow2
  qcow2-backup full --compress zstd /dev/vg0/disk backup.qcow2
  qcow2-backup full 'nbd+unix:///disk?socket=/run/nbd' backup.qcow2
  qcow2-backup full --json --progress json overlay.qcow2 --allow-path /srv/base backup.qcow2`

/** `full SOURCE TARGET`: the whole of a disk into a new qcow2 image. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Backs up the whole of a disk, with all its backing files, into a new qcow2 image.',
    )
    .argument('<source>', 'raw or qcow2 file, block device, or NBD export')
    .argument('<target>', 'the qcow2 image to make')
  addSourceOptions(command)
  addImageOptions(command)
  addDiscardOptions(command)
  addVerifyingOptions(command)
  addCopyOptions(command)
  command
    .addHelpText('after', HELP)
    .action((source: string, target: string, flags: Flags) => full(io, source, target, flags))
}

type Flags = SourceFlags & ImageFlags & DiscardOptions & VerifyingOptions & CopyFlags

async function full(io: Io, source: string, target: string, flags: Flags): Promise<void> {
  const { fullBackup } = await import('../../api/backup.ts')
  await runCopy(io, flags, (options) =>
    fullBackup(source, target, {
      ...openOptions(flags),
      ...imageOptions(flags),
      ...discardOptions(flags),
      ...verifyingOptions(flags),
      ...options,
    }),
  )
}
