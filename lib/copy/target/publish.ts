import { BackupError, ioError } from '../../errors.ts'
import type { Publication } from './target.ts'

/**
 * Gives several things their names: all of them, or none. Until the last one has its name, what they
 * replace is kept aside and comes back if anything fails; killed in between, some have their new
 * names and what they replaced is beside them as `.NAME.RANDOM.partial`. In the order given: what
 * comes first must be right also beside what comes later and is not there yet.
 * @returns what could not be cleaned up
 * @throws BackupError; it says what stands under the names if that is not what stood there before
 */
export async function publishAll(all: readonly Publication[]): Promise<string[]> {
  for (const one of all) await one.sync()
  const placed: Publication[] = []
  try {
    for (const one of all) {
      // Also one that fails may have come half the way.
      placed.unshift(one)
      await one.place()
    }
    for (const one of all) await one.settle()
  } catch (error) {
    throw withState(error, await revertAll(placed))
  }
  const left: string[] = []
  for (const one of all) {
    const what = await one.finish().catch((error) => ioError(one.path, error).message)
    if (what !== undefined) left.push(what)
  }
  return left
}

async function revertAll(placed: readonly Publication[]): Promise<string[]> {
  const states: string[] = []
  for (const one of placed) {
    const state = await one
      .revert()
      .catch((error) => `${one.path} could not be put back: ${ioError('', error).why}`)
    if (state !== undefined) states.push(state)
  }
  // That all is as it was should last, too; that it is not sure to is no news after the failure.
  for (const one of placed) await one.settle().catch(() => {})
  return states
}

/** The failure, with what stands under the names now. */
function withState(error: unknown, states: readonly string[]): unknown {
  if (states.length === 0 || !(error instanceof BackupError)) return error
  const { code, what, why, errno, hint } = error
  return new BackupError(code, what, [why, ...states].join('; '), { cause: error, errno, hint })
}
