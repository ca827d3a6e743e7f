import type { Command } from 'commander'
import { FULL_OPTIONS, fullBackup } from '../../api/backup.ts'
import { fullBackupStream } from '../../api/stream.ts'
import { runCopy } from '../copy.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { forStream, runStream, STDOUT } from '../stream-out.ts'

const HELP = `
Zeroes take no space in TARGET. TARGET appears under its name only when it is complete. With the target
- the image goes to standard output, in one pass; results and progress are on stderr then.

Examples:
  qcow2-backup full disk.raw backup.qcow2
  qcow2-backup full --verify --manifest disk.raw backup.qcow2
  qcow2-backup full --compress zstd /dev/vg0/disk backup.qcow2
  qcow2-backup full disk.raw - | ssh backup.example 'cat > disk.qcow2'
  qcow2-backup full --snapshot before-update disk.qcow2 backup.qcow2
  qcow2-backup full 'nbd+unix:///disk?socket=/run/nbd' backup.qcow2
  qcow2-backup full https://kvm1:54322/images/TICKET backup.qcow2 --ca ca.pem
  qcow2-backup full --json --progress json overlay.qcow2 --allow-path /srv/base backup.qcow2`

/** A full backup needs no bitmap. */
const { bitmap: _, ...OPTIONS } = FULL_OPTIONS

/** `full SOURCE TARGET`: the whole of a disk into a new qcow2 image. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Backs up the whole of a disk, with all its backing files, into a new qcow2 image.',
    )
    .argument('<source>', 'raw or qcow2 file, block device, NBD export, or imageio URL')
    .argument('<target>', 'the qcow2 image to make; - is standard output')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action((source: string, target: string, flags: OutputFlags) => {
      const options = optionsFrom(flags, OPTIONS)
      if (target !== STDOUT) {
        return runCopy(io, flags, (control) =>
          fullBackup(source, target, { ...options, ...control }),
        )
      }
      return runStream(io, flags, (control) =>
        fullBackupStream(source, { ...forStream(options), ...control }),
      )
    })
}
