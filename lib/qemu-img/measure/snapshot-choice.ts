import type { Snapshot } from '../../format/qcow2/snapshots.ts'
import { findSnapshot as findByIdOrName } from '../../image/internal-snapshot.ts'
import { QemuImgError } from '../messages.ts'
import { NEWEST } from '../version.ts'
import { OptionError, parseOptions } from './create-options.ts'

/** An internal snapshot by a text that is its id or its name, or by id, name or both. */
export type SnapshotChoice = { idOrName: string } | { id?: string; name?: string }

const OPTIONS = { 'snapshot.id': 'text', 'snapshot.name': 'text' } as const

/**
 * Reads the value of `-l`.
 * @throws QemuImgError
 */
export function snapshotChoice(text: string): SnapshotChoice {
  if (!text.startsWith('snapshot.')) return { idOrName: text }
  try {
    const options = parseOptions(text, OPTIONS, NEWEST)
    return { id: options.get('snapshot.id'), name: options.get('snapshot.name') }
  } catch (error) {
    if (!(error instanceof OptionError)) throw error
    const message = `${error.message}\nqemu-img: Failed in parsing snapshot param '${text}'`
    throw new QemuImgError(message, 1, { cause: error })
  }
}

/** The snapshot that is meant, if there is one. */
export function findSnapshot(
  snapshots: readonly Snapshot[],
  choice: SnapshotChoice,
): Snapshot | undefined {
  if ('idOrName' in choice) return findByIdOrName(snapshots, choice.idOrName)
  const { id, name } = choice
  if (id === undefined && name === undefined) return undefined
  return snapshots.find(
    (snapshot) => (id ?? snapshot.id) === snapshot.id && (name ?? snapshot.name) === snapshot.name,
  )
}
