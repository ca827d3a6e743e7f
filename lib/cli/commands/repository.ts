import type { Command } from 'commander'
import { REPAIR_OPTIONS, repairRepository } from '../../api/repository.ts'
import { usageError } from '../../errors.ts'
import type { RepairStep } from '../../repository/repair/step.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printFindings } from '../report.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'

const HELP = `
repository repair removes what killed runs left, and makes the record of a point again that has none, or none
that can be read, from its images, if all that others rely on follows from these and from the other
records. A file that cannot be read gets another name; nothing is removed that could be anybody's only copy. What
cannot be put right is named.

Exit status: 0 nothing is left to do, 1 something cannot be put right.

Examples:
  qcow2-backup repository repair --repo backups --dry-run
  qcow2-backup repository repair --repo backups web1 --json`

/** `repository repair --repo DIR [MACHINE]…`. */
export function declare(command: Command, io: Io): void {
  command
    .description('Puts right what can be in a repository.')
    .usage('repair --repo <dir> [options] [machine...]')
    .argument('<repair>', 'what to do: repair')
    .argument('[machine...]', 'only these machines')
  addFlags(addFlags(command, REPOSITORY_OPTIONS), REPAIR_OPTIONS)
  addOutputFlags(command, 'print the steps as one JSON array')
    .addHelpText('after', HELP)
    .action(async (action: string, names: string[], flags: OutputFlags) => {
      if (action !== 'repair')
        throw usageError(action, 'is nothing to do with a repository; repair is')
      const repo = requireRepository(optionsFrom(flags, REPOSITORY_OPTIONS).repository)
      const options = optionsFrom(flags, REPAIR_OPTIONS)
      const machines = names.length > 0 ? names : undefined
      await printFindings(
        io,
        flags,
        (control) => repairRepository(repo, { ...options, machines, ...control }),
        {
          describe,
          isGood: (step) => step.action !== 'leave',
          nothing: `${repo}: there is nothing to put right`,
          subject: 'repair',
          failures: 'cannot be put right',
        },
      )
    })
}

const WORDS: Record<RepairStep['action'], { done: string; undone: string }> = {
  finish: { done: 'finished', undone: 'to be finished' },
  remove: { done: 'removed', undone: 'to be removed' },
  rebuild: { done: 'made again', undone: 'to be made again' },
  'set-aside': { done: 'set aside', undone: 'to be set aside' },
  leave: { done: 'left', undone: 'left as it is' },
}

function describe({ action, done, file, to, why }: RepairStep): string[] {
  const word = WORDS[action][done ? 'done' : 'undone']
  return [`${file}: ${word}${to === undefined ? '' : ` as ${to}`}: ${why}`]
}
