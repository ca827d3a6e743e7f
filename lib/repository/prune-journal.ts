/**
 * The journal of a prune, `.prune.json`. It is written when all new images are there, under temporary
 * names, and has all that is left to do: from then on the prune is decided, and whoever has the machine next
 * finishes it.
 *
 * 1. The new images take the names of those that they replace. Each reads as the one before did, over what is there
 *    before and afterwards, so the order does not matter.
 * 2. The records of their points are replaced. They keep their ids, by which those above recognise them.
 * 3. The removed points go, newest first: the record, then the images and the definition.
 * 4. The journal goes.
 *
 * Killed in between, a record may be of the image before while the new one has the name already. A new image that
 * has no temporary name any more has its own: by that readers know which of the two records is right.
 */
import type { BackupError } from '../errors.ts'
import { readdir } from '../files.ts'
import { openFile } from '../image/file.ts'
import { described, list, matching, type Rule, record, whole } from '../schema.ts'
import { jsonText, publishText, removeFiles, renameFiles } from './files.ts'
import { FILE_NAME, type Form, readForm } from './form.ts'
import { recordName } from './names.ts'
import { metadataFault } from './parent-images.ts'
import { type DiskRecord, POINT, type PointRecord, requireRecord } from './record.ts'

export const PRUNE_JOURNAL_NAME = '.prune.json'

/** What a prune is about to do. */
export interface PruneJournal {
  version: 1
  /** Part of the temporary names. */
  run: string
  /** File names of images that are replaced. */
  images: string[]
  /** Of the points whose images these are, as they will be. */
  records: PointRecord[]
  /** Points, and the files that go with them. */
  remove: { point: string; files: string[] }[]
}

/** In the schema by the name that records have there. */
const RECORDS: Rule<readonly PointRecord[]> = {
  ...list(POINT.rule),
  json: { type: 'array', items: { $ref: '#/$defs/point' } },
}

const REMOVED = record<PruneJournal['remove'][number]>(
  {
    point: FILE_NAME,
    files: described(list(FILE_NAME), 'Its images and its definition.'),
  },
  {},
  { open: true },
)

/** Name of a new image until it takes the place of another one; `clean` of the folder knows it. */
export function temporaryImage(image: string, run: string): string {
  return `.${image}.${run}.partial`
}

export const PRUNE_JOURNAL: Form<PruneJournal> = {
  what: 'the journal of a prune',
  version: 'version',
  // Some ten thousand records.
  most: 64 * 2 ** 20,
  rule: record<PruneJournal>(
    {
      version: whole(1, 1),
      run: described(
        matching(/^[0-9a-f]{12}$/, 'the id of a run'),
        'Random; a new image is .IMAGE.RUN.partial until it takes the place of IMAGE.',
      ),
      images: described(list(FILE_NAME), 'Images that are replaced by new ones.'),
      records: described(RECORDS, 'Of the points of these images, as they will be.'),
      remove: described(list(REMOVED), 'Points that go, in this order.'),
    },
    {},
    { open: true },
  ),
}

/**
 * The journal of a prune that was ended early.
 * @returns undefined if there is none
 * @throws BackupError BAD_RECORD, UNSUPPORTED, IO
 */
export async function readPruneJournal(
  machine: string,
  directory: string,
): Promise<PruneJournal | undefined> {
  const path = `${directory}/${PRUNE_JOURNAL_NAME}`
  const journal = await readForm(path, PRUNE_JOURNAL)
  for (const one of journal?.records ?? []) requireRecord(path, one, { machine, point: one.point })
  return journal
}

/** @throws BackupError TARGET_EXISTS, IO */
export async function writePruneJournal(directory: string, journal: PruneJournal): Promise<void> {
  await publishText(`${directory}/${PRUNE_JOURNAL_NAME}`, jsonText(journal))
}

/**
 * The record of a point while a prune is under way: of each disk that of the image which has the name.
 * @param own as the point's file has it
 * @param isNew whether the new image has its name
 */
export function recordDuring(
  { records, images }: PruneJournal,
  own: PointRecord,
  isNew: (image: string) => boolean,
): PointRecord {
  const next = records.find(({ point }) => point === own.point)
  if (!next) return own
  const isChanged = ({ image }: DiskRecord) => images.includes(image) && isNew(image)
  const disks = own.disks.map((disk) => {
    return next.disks.find((one) => one.name === disk.name && isChanged(one)) ?? disk
  })
  const isWhole = next.disks.every((disk) => !images.includes(disk.image) || isNew(disk.image))
  return { ...(isWhole ? next : own), disks }
}

/**
 * Does what a journal says, or what is left of it. If a new image is lost, those that have no name yet are
 * dropped, and no point is removed.
 * @param own the records as they are in the files of their points
 * @returns names of files that were removed
 * @throws BackupError IO: to be done again
 */
export async function finishPrune(
  directory: string,
  journal: PruneJournal,
  own: (point: string) => Promise<PointRecord | undefined>,
): Promise<string[]> {
  const { run, images, records, remove } = journal
  const files = new Set(await readdir(directory))
  const temporary = (image: string) => temporaryImage(image, run)
  const isPending = (image: string) => files.has(temporary(image))
  const replaced = new Set<string>()
  for (const { disks } of records) {
    for (const disk of disks) {
      if (!images.includes(disk.image) || isPending(disk.image)) continue
      if (await isThere(directory, disk)) replaced.add(disk.image)
    }
  }
  const pending = images.filter(isPending)
  const isWhole = pending.length + replaced.size === images.length
  if (isWhole) {
    await renameFiles(
      directory,
      pending.map((image) => [temporary(image), image]),
    )
    for (const image of pending) replaced.add(image)
  }
  for (const { point } of records) {
    const before = await own(point)
    if (!before) continue
    const now = recordDuring(journal, before, (image) => replaced.has(image))
    await publishText(`${directory}/${recordName(point)}`, jsonText(now), { force: true })
  }
  const removed: string[] = []
  for (const { point, files } of isWhole ? remove : []) {
    removed.push(...(await removeFiles(directory, [recordName(point)])))
    removed.push(...(await removeFiles(directory, files)))
  }
  if (!isWhole) removed.push(...(await removeFiles(directory, pending.map(temporary))))
  await removeFiles(directory, [PRUNE_JOURNAL_NAME])
  return removed
}

/** Whether the image under a name is that of a record; the one before it had another backing file. */
async function isThere(directory: string, disk: DiskRecord): Promise<boolean> {
  try {
    const file = await openFile(`${directory}/${disk.image}`)
    const fault = await metadataFault(file, disk).finally(() => file.handle.close())
    return fault === undefined
  } catch (error) {
    const { code, errno } = error as BackupError
    if (code === 'IO' && errno !== 'ENOENT') throw error
    return false
  }
}
