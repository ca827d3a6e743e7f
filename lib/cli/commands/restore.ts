import { type Command, Option } from 'commander'
import { runCopy } from '../copy.ts'
import type { Io } from '../io.ts'
import {
  addCopyOptions,
  addImageOptions,
  addSourceOptions,
  type CopyFlags,
  type ImageFlags,
  imageOptions,
  openOptions,
  type SourceFlags,
} from '../options.ts'

const HELP = `
What is read of a single backup that has a manifest beside it is compared with the hash recorded
there; a difference is an error before TARGET gets its name. With --verify every image of the chain
is checked and read first, each against its own manifest.

A raw target is sparse: what reads as zero takes no room in it. An NBD export is overwritten in
place. The options about clusters and compression are for -O qcow2.

Examples:
  qcow2-backup restore backup.qcow2 disk.raw
  qcow2-backup restore --force backup.qcow2 /dev/vg0/disk
  qcow2-backup restore backup.qcow2 'nbd+unix:///disk?socket=/run/nbd'
  qcow2-backup restore -O qcow2 incremental-3.qcow2 disk.qcow2`

/** `restore BACKUP TARGET`: the content of a backup and its chain into a new disk. */
export function declare(command: Command, io: Io): void {
  command
    .description('Writes the content of a backup, with its whole chain, to a new disk.')
    .argument('<backup>', 'the image to restore')
    .argument('<target>', 'the file to make, or a block device or NBD export to overwrite')
    .addOption(
      new Option('-O, --output-format <format>', "the target's format (default: raw)").choices([
        'raw',
        'qcow2',
      ]),
    )
    .option('--no-hole', 'have the NBD server give room to what is zero, too')
    .option('--verify', 'check every image of the chain against its own manifest first')
    .option('--no-verify', 'look at no manifest')
  addSourceOptions(command, 'qcow2')
  addImageOptions(command)
  addCopyOptions(command)
  command
    .addHelpText('after', HELP)
    .action((backup: string, target: string, flags: Flags) => run(io, backup, target, flags))
}

type Flags = SourceFlags &
  ImageFlags &
  CopyFlags & { outputFormat?: 'raw' | 'qcow2'; hole: boolean; verify?: boolean }

async function run(io: Io, backup: string, target: string, flags: Flags): Promise<void> {
  const { restore } = await import('../../api/backup.ts')
  await runCopy(io, flags, (options) =>
    restore(backup, target, {
      ...openOptions(flags),
      ...imageOptions(flags),
      ...options,
      to: flags.outputFormat,
      noHole: !flags.hole,
      verify: flags.verify,
    }),
  )
}
