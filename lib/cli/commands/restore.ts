import type { Command } from 'commander'
import { RESTORE_OPTIONS, restore } from '../../api/backup.ts'
import { restoreMachine } from '../../api/repository.ts'
import { argumentError } from '../../errors.ts'
import type { RestoreMachineResult } from '../../repository/restore-point.ts'
import { option, TEXT } from '../../schema.ts'
import { runCopy } from '../copy.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { describeCopy } from '../output.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'
import { machineAndPoint, REPOSITORY_OPTIONS } from '../repository-flags.ts'

const HELP = `
If BACKUP is a single image with a manifest beside it, the data read is compared with the hash
recorded there; a difference is an error before TARGET gets its name. With --verify every image of
the chain is first checked, read and compared with its own manifest.

A raw target is sparse: zeroes take no space in it. An NBD export, or what an imageio server (oVirt) hands
out for a ticket, is overwritten in place. The
options for clusters and compression need -O qcow2.

With --repo, BACKUP is a machine of that repository, MACHINE or MACHINE@POINT; without a point it is the
latest. If it has several disks and --disk names none, or if TARGET ends in /, TARGET is a directory: it
gets all disks and the machine's definition, or nothing. Content is compared with the hashes in the
records, of a full backup while it is read, of a chain image by image before; an image that is not as
recorded, or builds on another point than recorded, is refused. --no-verify leaves out the hashes.

Examples:
  qcow2-backup restore backup.qcow2 disk.raw
  qcow2-backup restore --force backup.qcow2 /dev/vg0/disk
  qcow2-backup restore backup.qcow2 'nbd+unix:///disk?socket=/run/nbd'
  qcow2-backup restore backup.qcow2 https://kvm1:54322/images/TICKET --ca ca.pem
  qcow2-backup restore -O qcow2 incremental-3.qcow2 disk.qcow2
  qcow2-backup restore --repo backups web1 restored/
  qcow2-backup restore --repo backups web1@20261129T115200Z --disk vda disk.raw`

/** A backup is restored whole, whichever bitmaps it has. */
const { bitmap: _, ...OPTIONS } = RESTORE_OPTIONS

const OF_REPOSITORY = {
  ...REPOSITORY_OPTIONS,
  disk: option(TEXT, '--repo: only this disk'),
} as const

/** `restore BACKUP TARGET`: the content of a backup and its chain into a new disk. */
export function declare(command: Command, io: Io): void {
  command
    .description('Writes the content of a backup, with its whole chain, to a new disk.')
    .argument('<backup>', 'the image to restore; with --repo MACHINE[@POINT]')
    .argument(
      '<target>',
      'the file to make, or a block device, NBD export or imageio URL to overwrite',
    )
  addOutputFlags(addFlags(addFlags(command, OPTIONS), OF_REPOSITORY))
    .addHelpText('after', HELP)
    .action(async (backup: string, target: string, flags: OutputFlags) => {
      const options = optionsFrom(flags, OPTIONS)
      const { repository: repo, disk } = optionsFrom(flags, OF_REPOSITORY)
      if (repo === undefined) {
        if (disk !== undefined) throw argumentError('disk', 'needs a repository, --repo')
        await runCopy(io, flags, (control) => restore(backup, target, { ...options, ...control }))
        return
      }
      const { snapshot, format, ...rest } = options
      for (const [key, value] of Object.entries({ snapshot, format })) {
        if (value !== undefined) throw argumentError(key, 'is not for what a repository has')
      }
      const { machine, point } = machineAndPoint(backup)
      const result = await runWithProgress(io, flags, (control) =>
        restoreMachine(repo, machine, target, { ...rest, point, disk, ...control }),
      )
      await printResult(io, flags, result, describe)
    })
}

function describe(result: RestoreMachineResult): string[] {
  const { machine, point, verified, disks, definition } = result
  return [
    `${machine}@${point}: restored, ${verified ? 'as recorded' : 'not compared with its records'}`,
    ...disks.flatMap(describeCopy),
    ...(definition === undefined ? [] : [`${definition}: the machine's definition`]),
  ]
}
