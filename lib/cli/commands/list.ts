import type { Command } from 'commander'
import { type ListedPoint, listRepository } from '../../api/repository.ts'
import { formatAge, formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { printResult } from '../print-result.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'
import { type Column, tableLines } from '../table.ts'

const HELP = `
KIND is full, incr (incremental), or mixed where disks differ. SIZE is what the images of the point take.
CHAIN is how many images have to be read to restore it. VERIFIED says how long ago all of these were last
read and compared with their records, and BAD if one was not as recorded.

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
      await printResult(io, flags, points, describe)
    })
}

/** A table for each machine. */
function describe(points: readonly ListedPoint[]): string[] {
  const now = Date.now()
  const machines = new Map<string, ListedPoint[]>()
  for (const point of points) {
    const known = machines.get(point.machine)
    if (known) known.push(point)
    else machines.set(point.machine, [point])
  }
  return [...machines].flatMap(([machine, own], i) => {
    const bytes = own.reduce((sum, point) => sum + sizeOf(point), 0)
    const count = own.length === 1 ? '1 point' : `${own.length} points`
    return [
      ...(i > 0 ? [''] : []),
      `${machine}: ${count}, ${formatSize(bytes)}`,
      ...tableLines(columnsAt(now), own, '  '),
    ]
  })
}

function columnsAt(now: number): readonly Column<ListedPoint>[] {
  const age = (time: string) => formatAge(now - Date.parse(time))
  return [
    { heading: 'POINT', cell: ({ point }) => point },
    { heading: 'AGE', cell: ({ time }) => age(time), right: true },
    { heading: 'KIND', cell: kindOf },
    { heading: 'SIZE', cell: (point) => formatSize(sizeOf(point)), right: true },
    {
      heading: 'CHAIN',
      cell: ({ depth }) => (depth === undefined ? 'broken' : `${depth}`),
      right: true,
    },
    { heading: 'PARENT', cell: ({ parent = '-' }) => parent, spare: true },
    {
      heading: 'VERIFIED',
      cell: ({ verified }) => {
        if (!verified) return 'never'
        return verified.same ? age(verified.time) : `BAD, ${age(verified.time)}`
      },
      right: true,
    },
  ]
}

/** Bytes that its images take. */
function sizeOf({ disks }: ListedPoint): number {
  return disks.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0)
}

function kindOf({ disks }: ListedPoint): string {
  const full = disks.filter(({ kind }) => kind === 'full').length
  if (full === disks.length) return 'full'
  return full === 0 ? 'incr' : 'mixed'
}
