import type { Command } from 'commander'
import { INCREMENTAL_OPTIONS, incrementalBackup } from '../../api/backup.ts'
import type { IncrementalOptions } from '../../backup/types.ts'
import { runCopy } from '../copy.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'

const HELP = `
The bitmap is a persistent one of the qcow2 image SOURCE, or one that the NBD server exports; of an imageio
server (oVirt) it is that of the ticket, without --bitmap.
PREVIOUS must contain the disk as it was when the bitmap was added. TARGET records the path of
PREVIOUS relative to its own directory: move them together. TARGET appears only when it is complete.

Examples:
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2
  qcow2-backup incremental 'nbd+unix:///disk?socket=/run/nbd' monday.qcow2 --bitmap sunday \\
    --backing sunday.qcow2
  qcow2-backup incremental https://kvm1:54322/images/TICKET monday.qcow2 --backing sunday.qcow2 \\
    --ca ca.pem
  qcow2-backup restore monday.qcow2 disk.raw`

/** `incremental SOURCE TARGET --bitmap NAME --backing PREVIOUS`: the changes since PREVIOUS. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Backs up what changed since the previous backup into a new qcow2 image over that backup.',
    )
    .argument('<source>', 'qcow2 file, NBD export, or imageio URL')
    .argument('<target>', 'the qcow2 image to make')
  addOutputFlags(addFlags(command, INCREMENTAL_OPTIONS))
    .addHelpText('after', HELP)
    .action((source: string, target: string, flags: OutputFlags) =>
      runCopy(io, flags, (control) => {
        // The library says which of them is missing.
        const options = optionsFrom(flags, INCREMENTAL_OPTIONS) as IncrementalOptions
        return incrementalBackup(source, target, { ...options, ...control })
      }),
    )
}
