import { ioError, withNotes } from '../../errors.ts'
import { log } from '../../log.ts'
import type { Publication } from './target.ts'

/**
 * Gives several files their names: all of them, or none. Until the last one has its name, the files that they
 * replace are kept aside and come back if anything fails; killed in between, some have their new
 * names and the files that they replaced are beside them as `.NAME.RANDOM.partial`.
 * @param groups files that belong together, such as an image and its manifest. The first of a group must
 * be valid also beside the files that have the later names before they are replaced
 * @returns files that could not be cleaned up
 * @throws BackupError; it names the files left under the names if they are not the old ones
 */
export async function publishAll(groups: readonly (readonly Publication[])[]): Promise<string[]> {
  const all = groups.flat()
  const did = (what: string, { path }: Publication) => log('target', () => `${path}: ${what}`)
  for (const one of all) {
    await one.sync()
    did('synced', one)
  }
  const placed: Publication[][] = []
  let isSettling = false
  try {
    for (const group of groups) {
      placed.unshift([])
      for (const one of group) {
        // Also one that fails may have come half the way.
        placed[0].unshift(one)
        await one.place()
        did('has its name', one)
      }
    }
    isSettling = true
    for (const one of all) {
      await one.settle()
      did('its name is durable', one)
    }
  } catch (error) {
    log('target', () => `publishing failed, taking names back: ${(error as Error).message}`)
    throw withNotes(error, await revertAll(placed, isSettling))
  }
  const left: string[] = []
  for (const one of all) {
    const what = await one.finish().catch((error) => ioError(one.path, error).message)
    if (what !== undefined) left.push(what)
  }
  return left
}

/**
 * Takes names back.
 * @param placed the last first
 * @param wereSeen all had their names, which others may have seen by now
 * @returns the files now under the names, if they are not the old ones or others may have seen new ones
 */
async function revertAll(
  placed: readonly (readonly Publication[])[],
  wereSeen: boolean,
): Promise<string[]> {
  const states: string[] = []
  const takenBack: Publication[] = []
  for (const group of placed) {
    for (const one of group) {
      const state = await one.revert()
      if (state === undefined) {
        takenBack.push(one)
        continue
      }
      // Earlier files of the group match this one, and would not match the one it replaced.
      states.push(state)
      break
    }
  }
  // That all is as it was should last, too.
  let lasts = true
  for (const one of placed.flat()) {
    await one.settle().catch(() => {
      lasts = false
    })
  }
  if (!wereSeen) return states
  if (!lasts) states.push('a crash of the system may bring back what was new')
  return [...sayTakenBack(takenBack), ...states]
}

function sayTakenBack(all: readonly Publication[]): string[] {
  if (all.length === 0) return []
  if (all.length > 1) return [`${all.length} names were taken back: under them is what was before`]
  const [{ path, replaced }] = all
  const now = replaced === undefined ? 'nothing has it now' : 'it is the file before again'
  return [`the name ${path} was taken back: ${now}`]
}
