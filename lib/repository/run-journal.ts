/**
 * The journal of a run that adds a point, `.run.json`: the files that are about to get their names, before the record
 * says what they are. A killed run leaves it, and whoever has the machine next removes what it names.
 */
import type { BigIntStats } from 'node:fs'
import { basename } from 'node:path'
import type { Target } from '../copy/target/target.ts'
import { BackupError, ioError } from '../errors.ts'
import { lstat } from '../files.ts'
import { described, list, record, TEXT, whole } from '../schema.ts'
import { quoted } from '../text.ts'
import { jsonText, publishText } from './files.ts'
import { FILE_NAME, type Form, readForm, TIME } from './form.ts'
import type { MachineFolder } from './machine-folder.ts'
import { definitionName, isPointName } from './names.ts'

export const RUN_JOURNAL_NAME = '.run.json'
/** Of files that could not be made without a name, see lib/copy/target/temporary-file.ts. */
const TEMPORARY = /^\..+\.[0-9a-f]{12}\.partial$/s

interface RunJournal {
  version: 1
  /** Id of the run, and of the record. */
  run: string
  point: string
  files: JournalFile[]
}

/** A file is removed only if it is this one: another may have taken the name. */
interface JournalFile {
  name: string
  /** Bytes. */
  size: number
  /** ISO 8601. */
  modified: string
}

const JOURNAL_FILE = record<JournalFile>(
  {
    name: FILE_NAME,
    size: described(whole(0), 'Bytes.'),
    modified: described(
      TIME,
      'When it was last written to: another file of the name is not removed.',
    ),
  },
  {},
  { open: true },
)

export const RUN_JOURNAL: Form<RunJournal> = {
  what: 'the journal of a run',
  version: 'version',
  most: 2 ** 20,
  rule: record<RunJournal>(
    {
      version: whole(1, 1),
      run: described(TEXT, 'Id of the run, which its record will have.'),
      point: described(FILE_NAME, 'The point whose files are about to get their names.'),
      files: described(list(JOURNAL_FILE), 'The images, and the definition if there is one.'),
    },
    {},
    { open: true },
  ),
}

export function isTemporary(file: string): boolean {
  return TEMPORARY.test(file)
}

/**
 * @param files complete
 * @throws BackupError TARGET_EXISTS, IO
 */
export async function writeRunJournal(
  directory: string,
  { run, point }: Pick<RunJournal, 'run' | 'point'>,
  files: readonly Target[],
): Promise<void> {
  const listed: JournalFile[] = []
  for (const file of files) {
    // A file server gives what it has got a time of its own.
    await file.sync()
    const stats = await file.handle!.stat({ bigint: true })
    listed.push({ name: basename(file.path), ...identityOf(stats) })
  }
  const journal: RunJournal = { version: 1, run, point, files: listed }
  await publishText(`${directory}/${RUN_JOURNAL_NAME}`, jsonText(journal))
}

/**
 * The journal of a run that is under way, or was killed.
 * @returns undefined if there is none
 * @throws BackupError BAD_RECORD, UNSUPPORTED, IO
 */
export async function readRunJournal(directory: string): Promise<RunJournal | undefined> {
  const path = `${directory}/${RUN_JOURNAL_NAME}`
  const journal = await readForm(path, RUN_JOURNAL)
  if (!journal || isPointName(journal.point)) return journal
  const why = `is not ${RUN_JOURNAL.what}: point: ${quoted(journal.point)} is not the name of one`
  throw new BackupError('BAD_RECORD', path, why)
}

/**
 * The files of runs that add a point, if none is under way: temporary ones, and what a journal names, unless
 * there is a record of the point or another file has taken the name.
 * @returns names of those that are there
 * @throws BackupError BAD_RECORD, UNSUPPORTED, IO
 */
export async function leftByRuns(folder: MachineFolder): Promise<string[]> {
  const left = (await folder.files()).filter(isTemporary)
  const journal = await readRunJournal(folder.directory)
  if (!journal) return left
  const record = await folder.point(journal.point)
  const named = new Set(record?.disks.map(({ image }) => image))
  const definition = definitionName(journal.point)
  for (const file of journal.files) {
    const { name } = file
    const isOurs =
      name === definition ? !record : name.endsWith(`.${journal.point}.qcow2`) && !named.has(name)
    if (isOurs && (await isThere(folder.directory, file))) left.push(name)
  }
  return left
}

/** Whether a file is the one that a run was about to name. */
async function isThere(directory: string, { name, size, modified }: JournalFile): Promise<boolean> {
  try {
    const found = identityOf(await lstat(`${directory}/${name}`))
    return found.size === size && found.modified === modified
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw ioError(`${directory}/${name}`, error)
  }
}

/** Length and time of a file that nobody writes to any more. */
function identityOf(stats: Pick<BigIntStats, 'size' | 'mtimeMs'>) {
  return { size: Number(stats.size), modified: new Date(Number(stats.mtimeMs)).toISOString() }
}
