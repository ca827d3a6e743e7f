import type { Command } from 'commander'
import { COPY_REPOSITORY_OPTIONS, copyRepository } from '../../api/copy-repository.ts'
import { BackupError } from '../../errors.ts'
import type { CopiedMachine, CopyRepositoryResult } from '../../repository/copy/types.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'
import { machineAndPoint } from '../repository-flags.ts'

const HELP = `
What TO has already, by the ids of the points, is left alone; TO is made unless it is there. Images are copied
byte for byte, and compared with the hashes in the records before they get their names. A point comes after
those that it builds on, and its record last: what ends a copy leaves points that can be restored, and the
next copy goes on. A point that is not as recorded, and those that build on it, are left out; if TO has
another point of the same name, nothing of the machine is copied. All else is.

Exit status: 0 all is there, 1 something was left out.

Examples:
  qcow2-backup copy backups /mnt/offsite/backups
  qcow2-backup copy backups /mnt/offsite/backups web1 --rate-limit 50M
  qcow2-backup copy backups usb web1@20261129T115200Z
  qcow2-backup copy --dry-run backups /mnt/offsite/backups`

/** An argument says them. */
const { machine: _1, point: _2, ...OPTIONS } = COPY_REPOSITORY_OPTIONS

/** `copy FROM TO [MACHINE[@POINT]]`: from a repository to another one. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Copies machines, or points of them, to another repository: what is missing there.',
    )
    .argument('<from>', 'the repository that is read')
    .argument('<to>', 'the repository that is added to')
    .argument('[machine[@point]]', 'only this machine; only this point, with all that it builds on')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action(async (from: string, to: string, which: string | undefined, flags: OutputFlags) => {
      const options = optionsFrom(flags, OPTIONS)
      const only = which === undefined ? {} : machineAndPoint(which)
      const result = await runWithProgress(io, flags, (control) =>
        copyRepository(from, to, { ...options, ...only, ...control }),
      )
      await printResult(io, flags, result, ({ machines }) =>
        machines.flatMap((machine) => describe(machine, options.dryRun)),
      )
      requireComplete(result)
    })
}

function describe(
  { machine, copied, present, failed }: CopiedMachine,
  dryRun: boolean | undefined,
): string[] {
  const bytes = copied.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0)
  const what = dryRun ? 'would be copied' : 'copied'
  return [
    ...copied.map(
      (point) => `${machine}@${point.point}: ${what}, ${formatSize(point.allocatedBytes)}`,
    ),
    ...failed.map(({ difference }) => difference),
    `${machine}: ${count(copied.length)} ${what}, ${formatSize(bytes)}; ${present} were there`,
  ]
}

function count(points: number): string {
  return points === 1 ? '1 point' : `${points} points`
}

/** @throws BackupError DIFFERENT, after everything was printed */
function requireComplete({ machines }: CopyRepositoryResult): void {
  const failed = machines.filter((one) => one.failed.length > 0)
  if (failed.length === 0) return
  const of = machines.length === 1 ? 'machine' : 'machines'
  throw new BackupError(
    'DIFFERENT',
    'copy',
    `${failed.length} of ${machines.length} ${of} not complete`,
  )
}
