/** An image read as it was when an internal snapshot of it was made. */
import { BackupError, unsupported, usageError } from '../errors.ts'
import { inFile } from '../format/format-error.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { loadHeader } from '../format/qcow2/qcow2-image.ts'
import { readSnapshots, type Snapshot, type SnapshotEntry } from '../format/qcow2/snapshots.ts'
import { requireSnapshotTable } from '../format/qcow2/validate.ts'
import { listed, quoted } from '../text.ts'
import { type OpenFile, toOpenFile } from './file.ts'

/** The internal snapshot that an image is read by. */
export interface InternalSnapshot {
  readonly id: string
  readonly name: string
  /** Caveat: other snapshots have that name, too. */
  readonly note?: string
  /** Its entry in the table. */
  readonly entry: SnapshotEntry
}

/** Names in a message. */
const MAX_LISTED = 10

/**
 * Finds a snapshot as QEMU does: by its id first, else by its name. Of several the first is meant.
 */
export function findSnapshot(
  snapshots: readonly Snapshot[],
  idOrName: string,
): Snapshot | undefined {
  const byId = snapshots.find(({ id }) => id === idOrName)
  return byId ?? snapshots.find(({ name }) => name === idOrName)
}

/**
 * The header of an image as it was at an internal snapshot: it has the tables and the size of that
 * time. The state of the machine that may be stored after the disk is not part of it.
 * @param file of the image
 * @throws BackupError USAGE if there is no such snapshot; BAD_IMAGE, UNSUPPORTED, IO
 */
export async function readAtSnapshot(
  file: OpenFile,
  header: Qcow2Header,
  idOrName: string,
): Promise<{ header: Qcow2Header; snapshot: InternalSnapshot }> {
  const snapshots = await readSnapshots(file, header)
  const found = findSnapshot(snapshots, idOrName)
  if (!found) throw noSnapshot(file.path, idOrName, snapshots)
  if (header.externalDataFile) {
    // QEMU makes no snapshots of such an image: it writes to the data file in place.
    throw unsupported(file.path, 'has its data in another file, which keeps no snapshots')
  }
  const { l1TableOffset, l1Size, diskSize, id, name, raw } = found
  const then = { ...header, l1TableOffset, l1Size, size: diskSize }
  inFile(file.path, () => requireSnapshotTable(then))
  const note = noteOf(file.path, idOrName, found, snapshots)
  const virtualSize = Math.floor(diskSize / SECTOR_SIZE) * SECTOR_SIZE
  return { header: { ...then, virtualSize }, snapshot: { id, name, note, entry: raw } }
}

/**
 * Makes sure that a snapshot is still there, when it was read: the clusters of one that was deleted
 * may hold anything by now.
 * @throws BackupError SOURCE_CHANGED, BAD_IMAGE, IO
 */
export async function requireSnapshot(opened: OpenFile, wanted: InternalSnapshot): Promise<void> {
  const file = await toOpenFile(opened.path, opened.handle)
  const snapshots = await readSnapshots(file, await loadHeader(file))
  if (snapshots.some(({ raw }) => isSame(raw, wanted.entry))) return
  const why = `its snapshot ${quoted(wanted.name)} was deleted while it was read`
  throw new BackupError('SOURCE_CHANGED', file.path, why)
}

function isSame(a: SnapshotEntry, b: SnapshotEntry): boolean {
  const parts = ['fixed', 'extra', 'id', 'name'] as const
  return parts.every((part) => a[part].equals(b[part]))
}

function noSnapshot(path: string, idOrName: string, snapshots: readonly Snapshot[]): BackupError {
  const show = ({ id, name }: Snapshot) => `${quoted(name)} (id ${quoted(id)})`
  const has = snapshots.length === 0 ? 'none' : listed(snapshots, MAX_LISTED, show)
  return usageError(path, `has no snapshot ${quoted(idOrName)}; it has ${has}`)
}

/** A name may be given more than once, and may be another's id. */
function noteOf(
  path: string,
  idOrName: string,
  { id }: Snapshot,
  snapshots: readonly Snapshot[],
): string | undefined {
  const meant = snapshots.filter((one) => one.id === idOrName || one.name === idOrName)
  if (meant.length === 1) return undefined
  const which = `the one with id ${quoted(id)} was read`
  return `${path} has ${meant.length} snapshots with the name or id ${quoted(idOrName)}; ${which}`
}
