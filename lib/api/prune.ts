import { argumentError } from '../errors.ts'
import { COPY_OPTIONS } from '../options.ts'
import type { MachinePrune, PruneOptions } from '../repository/prune/prune.ts'
import type { RetentionPolicy } from '../repository/retention.ts'
import {
  BOOLEAN,
  callback,
  checkArgument,
  checkOptions,
  list,
  option,
  PATH,
  type SchemaFor,
  TEXT,
  whole,
} from '../schema.ts'
import { Call } from './call.ts'

/** Zero: there is no such rule. */
const COUNT = whole(0, 999_999)

export const POLICY_OPTIONS: SchemaFor<RetentionPolicy> = {
  keepLast: option(COUNT, 'keep the last points'),
  keepHourly: option(COUNT, 'keep the last point of each of so many hours that have one'),
  keepDaily: option(COUNT, 'keep the last point of each of so many days'),
  keepWeekly: option(COUNT, 'keep the last point of each of so many weeks, which begin on Monday'),
  keepMonthly: option(COUNT, 'keep the last point of each of so many months'),
  keepYearly: option(COUNT, 'keep the last point of each of so many years'),
}

const { force: _, ...RUN_OPTIONS } = COPY_OPTIONS

export const PRUNE_OPTIONS: SchemaFor<PruneOptions> = {
  machines: option(list(TEXT), 'only this machine', { value: 'name' }),
  ...POLICY_OPTIONS,
  dryRun: option(BOOLEAN, 'change nothing; say what would be done'),
  onPlan: option(
    callback<NonNullable<PruneOptions['onPlan']>>(),
    'called before a machine is changed',
  ),
  ...RUN_OPTIONS,
}

/**
 * Removes points in time that a policy does not keep, machine by machine. Images that build on removed ones are made
 * again first, with what those hold, after all that is read for that was compared with its hash; they are
 * checked, and take the names of the old ones. Interrupted or killed at any moment, every point that stays can be
 * restored, and the next run goes on. The newest point of a machine and of each of its disks stays in any
 * case.
 * @returns one result for each machine, whatever is wrong with one of them
 * @throws BackupError USAGE if no rule says what to keep, or there is no such machine; BAD_RECORD, UNSUPPORTED, IO
 * if it is no repository; ABORTED
 */
export async function* pruneRepository(
  repository: string,
  options: PruneOptions = {},
): AsyncGenerator<MachinePrune, void, undefined> {
  checkArgument('repository', PATH, repository)
  const { machines, onPlan, ...checked } = checkOptions(PRUNE_OPTIONS, options)
  const call = new Call(repository, checked.signal)
  const hooks = {
    onPlan: onPlan && call.taker('onPlan', onPlan),
    onProgress: call.callback('onProgress', checked.onProgress),
  }
  const { pruneAll } = await import('../repository/prune/prune.ts')
  const { hasRule } = await import('../repository/retention.ts')
  if (!hasRule(checked)) {
    throw argumentError('keepLast', 'missing: no rule says which points are to be kept')
  }
  yield* call.each(() => pruneAll(repository, { machines, ...checked, ...hooks }))
}
