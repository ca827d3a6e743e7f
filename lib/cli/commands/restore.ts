import type { Command } from 'commander'
import { RESTORE_OPTIONS, restore } from '../../api/backup.ts'
import { runCopy } from '../copy.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'

const HELP = `
If BACKUP is a single image with a manifest beside it, the data read is compared with the hash
recorded there; a difference is an error before TARGET gets its name. With --verify every image of
the chain is first checked, read and compared with its own manifest.

A raw target is sparse: zeroes take no space in it. An NBD export is overwritten in place. The
options for clusters and compression need -O qcow2.

Examples:
  qcow2-backup restore backup.qcow2 disk.raw
  qcow2-backup restore --force backup.qcow2 /dev/vg0/disk
  qcow2-backup restore backup.qcow2 'nbd+unix:///disk?socket=/run/nbd'
  qcow2-backup restore -O qcow2 incremental-3.qcow2 disk.qcow2`

/** A backup is restored whole, whichever bitmaps it has. */
const { bitmap: _, ...OPTIONS } = RESTORE_OPTIONS

/** `restore BACKUP TARGET`: the content of a backup and its chain into a new disk. */
export function declare(command: Command, io: Io): void {
  command
    .description('Writes the content of a backup, with its whole chain, to a new disk.')
    .argument('<backup>', 'the image to restore')
    .argument('<target>', 'the file to make, or a block device or NBD export to overwrite')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action((backup: string, target: string, flags: OutputFlags) =>
      runCopy(io, flags, (control) =>
        restore(backup, target, { ...optionsFrom(flags, OPTIONS), ...control }),
      ),
    )
}
