/** Something that a report has to say, in words. */
export interface Finding {
  /** `fault`: something is lost or cannot be trusted; `warning`: something should be done. */
  level: 'good' | 'note' | 'warning' | 'fault'
  text: string
}

const LEVELS = ['fault', 'warning', 'note', 'good'] as const

/** The gravest first; of one level in their order. */
export function gravestFirst<T extends Pick<Finding, 'level'>>(findings: readonly T[]): T[] {
  return LEVELS.flatMap((level) => findings.filter((one) => one.level === level))
}
