import type { Command } from 'commander'
import { listRepository } from '../../api/repository.ts'
import type { PointRecord } from '../../repository/record.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { printResult } from '../print-result.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'

const HELP = `
Examples:
  qcow2-backup list --repo backups
  qcow2-backup list --repo backups web1 --json`

/** `list --repo DIR [MACHINE]`: the points in time of a repository. */
export function declare(command: Command, io: Io): void {
  command
    .description(
      'Lists the points in time that a repository has, the oldest of each machine first.',
    )
    .argument('[machine]', 'only of this machine')
    .option('--json', 'print the records as one JSON array')
  addFlags(command, REPOSITORY_OPTIONS)
    .addHelpText('after', HELP)
    .action(async (machine: string | undefined, flags: { json?: boolean }) => {
      const repo = requireRepository(optionsFrom(flags, REPOSITORY_OPTIONS).repository)
      const points = await io.interruptible((signal) => listRepository(repo, { machine, signal }))
      await printResult(io, flags, points, (all) => all.map(describe))
    })
}

function describe({ machine, point, time, parent, disks }: PointRecord): string {
  const kinds = disks.map(({ name, kind, fileSize }) => `${name} ${kind} ${formatSize(fileSize)}`)
  const since = parent === undefined ? '' : ` since ${parent}`
  return `${machine}@${point}  ${time}${since}  ${kinds.join(', ')}`
}
