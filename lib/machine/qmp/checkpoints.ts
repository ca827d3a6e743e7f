import type { QmpClient } from '../../qmp/client.ts'
import type { QmpObject } from '../../qmp/protocol.ts'
import { QmpError } from '../../qmp/qmp-error.ts'
import { quoted } from '../../text.ts'
import { newBitmap } from './names.ts'
import type { PlannedDisk } from './plan-freeze.ts'

/** Bytes per bit of a new checkpoint's bitmap. */
export const GRANULARITY = 65536

/** Bytes per bit of a bitmap that is only to be there. */
export const MARK = 2 ** 31

/** One action of a transaction. */
export interface Action extends QmpObject {
  type: string
  data: QmpObject
}

/** Carries out all of them, or none. @throws BackupError IO */
export async function transact(client: QmpClient, actions: readonly Action[]): Promise<void> {
  if (actions.length > 0) await client.execute('transaction', { actions })
}

/** A bitmap that has recorded for a checkpoint gets its name: QEMU cannot rename one. */
export function begun(node: string, name: string, checkpoint: string): Action[] {
  const added = { node, name: checkpoint, granularity: GRANULARITY, persistent: true }
  const merged = { node, target: checkpoint, bitmaps: [{ node, name }] }
  return [
    { type: 'block-dirty-bitmap-add', data: added },
    { type: 'block-dirty-bitmap-merge', data: merged },
    { type: 'block-dirty-bitmap-remove', data: { node, name } },
  ]
}

/**
 * Begins the checkpoints of all disks at once: from here on the next backup can be an incremental one
 * to this.
 * @throws BackupError IO if QEMU refuses: nothing is changed then
 */
export async function beginCheckpoints(
  client: QmpClient,
  disks: readonly PlannedDisk[],
  run: string,
): Promise<void> {
  const actions = disks.flatMap(({ checkpoint, disk: { node } }) => {
    return checkpoint === undefined ? [] : begun(node, newBitmap(run, checkpoint), checkpoint)
  })
  await transact(client, actions)
}

/**
 * Removes bitmaps of earlier backups from all images that have them.
 * @returns notes: those in backing files stay, which QEMU has open for reading only as a rule. They record
 * nothing there
 */
export async function removeOld(
  client: QmpClient,
  disks: readonly PlannedDisk[],
  names: readonly string[],
): Promise<string[]> {
  const notes: string[] = []
  for (const { disk } of disks) {
    for (const { name, images } of disk.bitmaps) {
      if (!names.includes(name)) continue
      const nodes = disk.chain.filter((_, i) => images[i].present)
      for (const node of nodes) {
        try {
          await client.execute('block-dirty-bitmap-remove', { node, name })
        } catch (error) {
          if (!(error instanceof QmpError)) throw error
          const where = node === disk.node ? 'disk' : 'a backing file of disk'
          notes.push(`bitmap ${quoted(name)} stays in ${where} ${quoted(disk.name)}: ${error.why}`)
        }
      }
    }
  }
  return notes
}
