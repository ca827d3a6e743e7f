import { listed } from '../../text.ts'
import { type Finding, gravestFirst } from '../finding.ts'
import type { ReportedMachine, RepositoryNote } from './types.ts'

/** Machines that a finding names. */
const MAX_NAMED = 8
/** Findings of a kind from which they are told as one. */
const ALIKE = 4

/** What is to be said of all machines: of many alike one sentence. */
export function summarize(machines: readonly ReportedMachine[]): Finding[] {
  const all = machines.flatMap(({ findings }) => findings)
  const kinds = new Map<string, RepositoryNote[]>()
  for (const one of all) {
    const key = `${one.kind} ${one.level}`
    kinds.set(key, [...(kinds.get(key) ?? []), one])
  }
  const told = [...kinds.values()].flatMap((alike): Finding[] => {
    const [{ level, kind }] = alike
    if (alike.length < ALIKE) {
      return alike.map(({ machine, text }) => ({ level, text: `${machine}: ${text}` }))
    }
    const machines = [...new Set(alike.map(({ machine }) => machine))]
    const names = listed(machines, MAX_NAMED, (name) => name)
    return [{ level, text: `${machines.length} machines ${ALIKE_WORDS[kind]}: ${names}` }]
  })
  if (told.every(({ level }) => level === 'note') && machines.length > 0) {
    told.push({ level: 'good', text: 'Every machine is backed up and verified as usual.' })
  }
  return gravestFirst(told)
}

const ALIKE_WORDS: Record<RepositoryNote['kind'], string> = {
  record: 'have records that cannot be read',
  journal: 'have the journal of a run that cannot be read, and get no backup',
  missing: 'lack images that records name',
  parent: 'have points that cannot be restored, as what they build on is gone',
  different: 'have points that are not as recorded',
  orphan: 'have files that no record names',
  leftover: 'have a run that is under way or was killed',
  overdue: 'have no new backup for several times the usual interval',
  chain: 'have long chains; prune or make a full backup',
  unverified: 'have points that were not verified lately, or never',
  clock: 'have points of the future: a clock was wrong',
  prune: 'cannot be pruned',
}
