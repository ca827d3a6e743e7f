import { throwIfAborted } from '../../errors.ts'
import type { ControlOptions } from '../../options.ts'
import { positions } from '../../progress.ts'
import { takeInventory } from '../../repository/inventory.ts'
import type { Repository } from '../../repository/repository.ts'
import { hasRule, type RetentionPolicy } from '../../repository/retention.ts'
import { readVerified } from '../../repository/verified.ts'
import { reportMachine } from './machine.ts'
import { plannedPrune } from './planned-prune.ts'
import { summarize } from './summary.ts'
import type { ReportedMachine, RepositoryReport } from './types.ts'

/**
 * Looks at the records of a repository, and at which files there are. What is broken is what it finds.
 * @throws BackupError IO if a folder cannot be read; ABORTED
 */
export async function surveyRepository(
  repository: Repository,
  policy: RetentionPolicy,
  { signal, onProgress }: ControlOptions = {},
): Promise<RepositoryReport> {
  const { directory } = repository
  const folders = await repository.folders()
  const tell = positions('chain', folders.length, onProgress)
  const now = new Date()
  const machines: ReportedMachine[] = []
  for (const [i, folder] of folders.entries()) {
    throwIfAborted(signal, folder.directory)
    tell?.(i)
    const { machine } = folder
    const inventory = await takeInventory(folder, signal)
    const { points, broken, orphans, leftovers, brokenJournals } = inventory
    // Directories of others stay in peace.
    const all = [points, broken, orphans, leftovers, brokenJournals]
    if (all.every((some) => some.length === 0)) continue
    const files = new Set(await folder.files())
    const verified = await readVerified(folder)
    const prune = hasRule(policy) ? plannedPrune(inventory, policy) : undefined
    machines.push(reportMachine({ machine, inventory, files, verified, prune }, policy, now))
  }
  tell?.(folders.length, true)
  return {
    repository: directory,
    time: now.toISOString(),
    storedBytes: machines.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
    findings: summarize(machines),
    machines,
    ...(hasRule(policy) ? { policy } : {}),
  }
}
