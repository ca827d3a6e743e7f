import { type Command, Option } from 'commander'
import { usageError } from '../../errors.ts'
import { runCopy } from '../copy.ts'
import {
  addCopyOptions,
  addImageOptions,
  addSourceOptions,
  type CopyFlags,
  type ImageFlags,
  imageOptions,
  openOptions,
  type SourceFlags,
  wholeNumber,
} from '../options.ts'

const HELP = `
What reads as zero takes no room in TARGET. TARGET appears under its name only when it is complete.

Examples:
  qcow2-backup full disk.raw backup.qcow2
  qcow2-backup full --compress zstd /dev/vg0/disk backup.qcow2
  qcow2-backup full --json --progress json overlay.qcow2 --allow-path /srv/base backup.qcow2`

/** `full SOURCE TARGET`: the whole of a disk into a new qcow2 image. */
export function declare(command: Command): void {
  command
    .description(
      'Backs up the whole of a disk, with all its backing files, into a new qcow2 image.',
    )
    .argument('<source>', 'raw or qcow2 file, or block device')
    .argument('<target>', 'the qcow2 image to make')
  addSourceOptions(command)
  addImageOptions(command)
  addCopyOptions(command)
  command
    .addOption(
      new Option('--connections <n>', 'connections to an NBD server')
        .argParser(wholeNumber('--connections'))
        .hideHelp(),
    )
    .addHelpText('after', HELP)
    .action(full)
}

type Flags = SourceFlags & ImageFlags & CopyFlags & { connections?: number }

async function full(source: string, target: string, flags: Flags): Promise<void> {
  if (flags.connections !== undefined && !/^nbds?(\+unix)?:/.test(source)) {
    throw usageError('--connections', 'only an NBD source has connections')
  }
  const { fullBackup } = await import('../../backup/full.ts')
  await runCopy(flags, (options) =>
    fullBackup(source, target, { ...openOptions(flags), ...imageOptions(flags), ...options }),
  )
}
