import { argumentError, BackupError } from '../errors.ts'
import type { Machine, MachineDisk } from '../machine/machine.ts'
import type { LockedMachine } from '../repository/locked-machine.ts'
import { requirePointName } from '../repository/names.ts'
import { listed, quoted } from '../text.ts'
import type { BackupMachineOptions } from './types.ts'

const MAX_LISTED = 20

/**
 * The disks that are to be backed up.
 * @throws BackupError USAGE; IN_USE, UNSUPPORTED and others if one of them cannot be
 */
export function chooseDisks(
  { title }: Pick<Machine, 'title'>,
  all: readonly MachineDisk[],
  { disks, exclude = [] }: Pick<BackupMachineOptions, 'disks' | 'exclude'>,
): MachineDisk[] {
  const requireKnown = (argument: string, names: readonly string[]) => {
    const unknown = names.find((name) => !all.some((disk) => disk.name === name))
    if (unknown === undefined) return
    const known = listed(all, MAX_LISTED, ({ name }) => quoted(name))
    throw argumentError(
      argument,
      `${title} has no disk ${quoted(unknown)}; it has ${known || 'none'}`,
    )
  }
  requireKnown('disks', disks ?? [])
  requireKnown('exclude', exclude)
  const chosen = all.filter(
    ({ name }) => (disks?.includes(name) ?? true) && !exclude.includes(name),
  )
  if (chosen.length === 0) throw new BackupError('USAGE', title, 'no disk is left to back up')
  for (const { name, full } of chosen) {
    if (full.possible) continue
    const { code = 'UNSUPPORTED', reason = 'it cannot be read at one instant' } = full
    throw new BackupError(code, `${title}, disk ${name}`, `cannot be backed up: ${reason}`)
  }
  return chosen
}

/**
 * The name of the new point.
 * @param all the machine's disks: none may have a bitmap of the name
 * @throws BackupError USAGE, TARGET_EXISTS if the name asked for is taken; IO
 */
export async function choosePoint(
  folder: LockedMachine,
  all: readonly MachineDisk[],
  { checkpoint }: Pick<BackupMachineOptions, 'checkpoint'>,
): Promise<string> {
  const bitmaps = new Set(all.flatMap(({ bitmaps }) => bitmaps.map(({ name }) => name)))
  if (checkpoint !== undefined) {
    requirePointName('checkpoint', checkpoint)
    if (await folder.isTaken(checkpoint)) {
      throw new BackupError('TARGET_EXISTS', checkpoint, `${folder.directory} has this point`)
    }
    if (bitmaps.has(checkpoint)) {
      throw new BackupError('TARGET_EXISTS', checkpoint, 'a disk has a bitmap of this name')
    }
    return checkpoint
  }
  // Two in a second, or a clock that was put back.
  for (let time = Date.now(); ; time += 1000) {
    const name = new Date(time).toISOString().replace(/\.\d+|[-:]/g, '')
    if (!bitmaps.has(name) && !(await folder.isTaken(name))) return name
  }
}
