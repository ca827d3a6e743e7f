import type { Command } from 'commander'
import { PRUNE_OPTIONS, pruneRepository } from '../../api/prune.ts'
import { BackupError } from '../../errors.ts'
import type { JoinedImage, MachinePrune } from '../../repository/prune/prune.ts'
import { listed } from '../../text.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { humanLines } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'

/** Points in a line. */
const MAX_LISTED = 4

const HELP = `
A rule keeps the last point of each of the newest N hours, days, weeks (from Monday), months or years that have
one, in UTC, and while it has some left, the oldest point. A point that any rule keeps stays, and so does
the newest one of each machine and of each disk: the next backup builds on it.

Images that build on removed ones are first made again with what those hold, beside the old ones; what is
read for that is compared with its recorded hash. The space for this is checked beforehand. A prune that is
interrupted or killed leaves every kept point restorable; the next run of any kind finishes it.

Examples:
  qcow2-backup prune --repo backups --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  qcow2-backup prune --repo backups web1 --keep-last 3`

const { machines: _1, onPlan: _2, ...OF_PRUNE } = PRUNE_OPTIONS
const OPTIONS = { ...REPOSITORY_OPTIONS, ...OF_PRUNE }

/** `prune --repo DIR [MACHINE]…`: removes points that no rule keeps. */
export function declare(command: Command, io: Io): void {
  command
    .description('Removes the points in time of a repository that no rule keeps.')
    .argument('[machine...]', 'only of these machines')
  addOutputFlags(addFlags(command, OPTIONS), 'print the results as one JSON array')
    .addHelpText('after', HELP)
    .action(async (machines: string[], flags: OutputFlags) => {
      const { repository, ...options } = optionsFrom(flags, OPTIONS)
      const repo = requireRepository(repository)
      const all = await runWithProgress(io, flags, async (control, display) => {
        const print = async (lines: readonly string[]) => {
          if (!flags.json) await display.around(() => io.stdout(humanLines(lines)))
        }
        const done: MachinePrune[] = []
        const some = machines.length > 0 ? { machines } : {}
        const onPlan = (plan: MachinePrune) => print(describePlan(plan))
        for await (const one of pruneRepository(repo, {
          ...options,
          ...some,
          onPlan,
          ...control,
        })) {
          done.push(one)
          await print(describeEnd(one, options.dryRun === true))
        }
        return done
      })
      if (flags.json) await io.stdout(`${JSON.stringify(all, null, 1)}\n`)
      throwFailure(all)
    })
}

function describePlan({ machine, points, joined, neededBytes }: MachinePrune): string[] {
  const kept = points.filter(({ keep }) => keep).length
  const size = Math.max(0, ...points.map(({ point }) => point.length))
  return [
    `${machine}: ${kept} of ${points.length} points are kept`,
    ...points.map(({ point, keep, reasons }) => {
      return `  ${keep ? 'keep  ' : 'remove'}  ${point.padEnd(size)}  ${reasons.join(', ')}`
    }),
    ...joined.map(describeJoin),
    ...(joined.length > 0 ? [`  needs at most ${formatSize(neededBytes)} meanwhile`] : []),
  ]
}

function describeJoin({ image, with: others, parent, fileSize }: JoinedImage): string {
  const over = parent === undefined ? 'in full' : `over ${parent}`
  const taken = listed(others, MAX_LISTED, (point) => point)
  return `  make again  ${image} with ${taken}; ${over}, at most ${formatSize(fileSize)}`
}

function describeEnd(
  { machine, points, removed, freedBytes, failure, notes }: MachinePrune,
  dryRun: boolean,
): string[] {
  const told = notes.map((note) => `  note: ${note}`)
  if (failure) return [...told, `${machine}: failed: ${failure.message}`]
  const count = dryRun ? points.filter(({ keep }) => !keep).length : removed.length
  if (count === 0) return told
  const amount = formatSize(Math.abs(freedBytes))
  const space = freedBytes < 0 ? `${amount} more in use` : `${amount} freed`
  const what = dryRun ? `would be removed, at most ${space}` : `removed, ${space}`
  return [...told, `${machine}: ${count} points ${what}`]
}

/** @throws BackupError if a machine could not be pruned */
function throwFailure(all: readonly MachinePrune[]): void {
  const failures = all.flatMap(({ failure }) => failure ?? [])
  if (failures.length === 0) return
  const [{ code, message }] = failures
  const why =
    failures.length === 1 ? message : `${failures.length} of ${all.length} machines failed`
  throw new BackupError(code, 'prune', why)
}
