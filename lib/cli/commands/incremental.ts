import type { Command } from 'commander'
import { INCREMENTAL_OPTIONS, incrementalBackup } from '../../api/backup.ts'
import { BACKING_NAME_OPTION, incrementalBackupStream } from '../../api/stream.ts'
import type { IncrementalOptions } from '../../backup/types.ts'
import { argumentError } from '../../errors.ts'
import { runCopy } from '../copy.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { forStream, runStream, STDOUT } from '../stream-out.ts'

const HELP = `
The bitmap is a persistent one of the qcow2 image SOURCE, or one that the NBD server exports; of an imageio
server (oVirt) it is that of the ticket, without --bitmap.
PREVIOUS must contain the disk as it was when the bitmap was added. TARGET records the path of
PREVIOUS relative to its own directory: move them together. TARGET appears only when it is complete.
With the target - the image goes to standard output, in one pass; it records the name of PREVIOUS without
its directory, or what --backing-name says, with which PREVIOUS need not be here.

Examples:
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing sunday.qcow2
  qcow2-backup incremental 'nbd+unix:///disk?socket=/run/nbd' monday.qcow2 --bitmap sunday \\
    --backing sunday.qcow2
  qcow2-backup incremental https://kvm1:54322/images/TICKET monday.qcow2 --backing sunday.qcow2 \\
    --ca ca.pem
  qcow2-backup incremental disk.qcow2 - --bitmap sunday --backing-name sunday.qcow2 > monday.qcow2
  qcow2-backup restore monday.qcow2 disk.raw`

const OPTIONS = { ...INCREMENTAL_OPTIONS, backingName: BACKING_NAME_OPTION }

/** `incremental SOURCE TARGET --bitmap NAME --backing PREVIOUS`: the changes since PREVIOUS. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Backs up what changed since the previous backup into a new qcow2 image over that backup.',
    )
    .argument('<source>', 'qcow2 file, NBD export, or imageio URL')
    .argument('<target>', 'the qcow2 image to make; - is standard output')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action((source: string, target: string, flags: OutputFlags) => {
      const { backingName, ...options } = optionsFrom(flags, OPTIONS)
      if (target === STDOUT) {
        return runStream(io, flags, (control) =>
          incrementalBackupStream(source, { ...forStream(options), backingName, ...control }),
        )
      }
      if (backingName !== undefined) throw argumentError('backingName', 'needs the target -')
      return runCopy(io, flags, (control) => {
        // The library says which of them is missing.
        return incrementalBackup(source, target, { ...(options as IncrementalOptions), ...control })
      })
    })
}
