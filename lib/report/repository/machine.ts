import { Lineage } from '../../repository/lineage.ts'
import type { PointRecord } from '../../repository/record.ts'
import { applyRetention, hasRule, type RetentionPolicy } from '../../repository/retention.ts'
import { verifiedPoints } from '../../repository/verified.ts'
import { gravestFirst } from '../finding.ts'
import type { MachineFacts } from './facts.ts'
import { machineFindings } from './findings.ts'
import type { ReportedMachine, ReportedPoint } from './types.ts'

/** Backups by which the usual time between two is judged. */
const LATELY = 30

/** What is reported of a machine. */
export function reportMachine(
  facts: MachineFacts,
  policy: RetentionPolicy,
  now: Date,
): ReportedMachine {
  const { machine, inventory } = facts
  const lineage = new Lineage(inventory.points)
  const depths = lineage.depths()
  const verified = verifiedPoints(lineage, facts.verified)
  const verdicts = hasRule(policy) ? applyRetention(inventory.points, policy) : []
  const retention = new Map(verdicts.map(({ point, keep, reasons }) => [point, { keep, reasons }]))
  const points = inventory.points.map((record): ReportedPoint => {
    const disks = record.disks.map((disk) => {
      const { name, kind, virtualSize, allocatedBytes: storedBytes } = disk
      return { name, kind, virtualSize, storedBytes }
    })
    const { point, time } = record
    return {
      point,
      time,
      kind: kindOf(record),
      disks,
      storedBytes: disks.reduce((sum, disk) => sum + disk.storedBytes, 0),
      depth: depths.get(point),
      verified: verified.get(point),
      retention: retention.get(record),
    }
  })
  const reported: ReportedMachine = {
    machine,
    points,
    storedBytes: points.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
    usualInterval: usualInterval(points),
    prune: facts.prune,
    findings: [],
  }
  const findings = gravestFirst(machineFindings(facts, lineage, reported, now))
  return { ...reported, findings }
}

function kindOf({ disks }: PointRecord): ReportedPoint['kind'] {
  const kinds = new Set(disks.map(({ kind }) => kind))
  return kinds.size > 1 ? 'mixed' : ([...kinds][0] ?? 'full')
}

function usualInterval(points: readonly Pick<ReportedPoint, 'time'>[]): number | undefined {
  const times = points.slice(-LATELY - 1).map(({ time }) => Date.parse(time))
  const gaps = times.slice(1).map((time, i) => time - times[i])
  if (gaps.length < 2) return undefined
  return gaps.sort((a, b) => a - b)[Math.floor(gaps.length / 2)]
}
