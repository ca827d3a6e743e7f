import type { BackupError } from '../errors.ts'

/** One line of a check's output, without a line feed. */
export interface Finding {
  /**
   * - `finding`: something that is wrong, or repaired.
   * - `message`: why the check itself cannot do something.
   * - `corrupt`: damage that a reader comes across and goes on with.
   */
  readonly kind: 'finding' | 'message' | 'corrupt'
  readonly text: string
  /** Why, where a failure of something else is reported: follows `text` after a colon. */
  readonly cause?: BackupError
}

/** Takes findings as they are made. */
export type Say = (finding: Finding) => void

/** A finding as one line in our words. */
export function findingText({ text, cause }: Finding): string {
  return (cause ? `${text}: ${cause.why}` : text).trim()
}
