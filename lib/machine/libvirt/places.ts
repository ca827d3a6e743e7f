import { dirname } from 'node:path'
import { BackupError, ioError } from '../../errors.ts'
import { constants, descriptorPath, mkdir, open, readdir, rmdir, unlink } from '../../files.ts'
import { MAX_SOCKET_PATH } from '../../qmp/address.ts'
import type { Domain } from './domain.ts'
import { ownerIn } from './owner.ts'
import { writeNew } from './write-new.ts'

/** Where QEMU can make files, whatever user it runs as, and where large ones may be. */
export const DEFAULT_PLACE = '/var/tmp'

/** More than a domain has. */
const MAX_DISKS = 4096

/** Of a record, bytes. */
const MAX_RECORD = 65536

/** The file that tells of a run in its directory. */
const RECORD = 'run.json'

/** What the next run must know of one that was killed. */
export interface RunRecord {
  /** Of the domain. */
  uuid: string
  /** The guest's file systems may be frozen. */
  quiesce: boolean
  /** Disks with exports that take discards. */
  discards: number
  /** Directories of the run. */
  directories: string[]
}

/** The files of a run beside a domain on this host. */
export interface Places {
  /** For the socket, and the scratch files if there is no other. */
  directory: string
  /** For the scratch files. */
  scratch: string
}

/**
 * Makes directories in which QEMU can make its files and nobody else can look.
 * @param scratch where large files may be
 * @throws BackupError IO
 */
export async function makePlaces(
  mark: string,
  { uuid, user }: Domain,
  { scratch, quiesce, discards }: { scratch?: string; quiesce: boolean; discards: number },
): Promise<Places> {
  const directory = `${DEFAULT_PLACE}/${mark}`
  const places = { directory, scratch: scratch === undefined ? directory : `${scratch}/${mark}` }
  const socket = socketOf(places)
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH)
    throw new BackupError('IO', socket, 'is too long')
  const directories = [...new Set([places.directory, places.scratch])]
  try {
    for (const one of directories) await makeFor(one, user)
    const record: RunRecord = { uuid, quiesce, discards, directories }
    await writeNew(`${directory}/${RECORD}`, JSON.stringify(record))
  } catch (error) {
    await removePlaces(directories)
    throw error
  }
  return places
}

export function socketOf({ directory }: Places): string {
  return `${directory}/nbd`
}

async function makeFor(path: string, user: Domain['user']): Promise<void> {
  try {
    await mkdir(path, 0o700)
    const isRoot = process.getuid?.() === 0
    if (!isRoot && (user === undefined || user.uid === process.getuid?.())) return
    const handle = await open(path, constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      if (isRoot && user) await handle.chown(user.uid, user.gid)
      // Whom QEMU runs as is not known, or cannot be given the directory: anybody may make files, but
      // not list them, and the name is not to be guessed.
      else await handle.chmod(0o1733)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw ioError(path, error)
  }
}

/**
 * Removes directories of runs with what is in them. Only names that a run makes are taken: whoever QEMU
 * runs as may write to the directories.
 * @returns those that were removed
 */
export async function removePlaces(directories: readonly string[]): Promise<string[]> {
  const removed: string[] = []
  for (const directory of directories) {
    if (ownerIn(directory)?.mark !== directory.slice(directory.lastIndexOf('/') + 1)) continue
    await emptyPlace(directory).catch(() => {})
    const isGone = await rmdir(directory).then(
      () => true,
      () => false,
    )
    if (isGone) removed.push(directory)
  }
  return removed
}

/** Whoever owns a directory may put a link in its place at any time: only what is open counts. */
async function emptyPlace(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    const path = descriptorPath(handle)
    for (const name of await readdir(path)) {
      const isOurs = name === RECORD || name === 'nbd' || name.endsWith('.scratch')
      if (isOurs) await unlink(`${path}/${name}`).catch(() => {})
    }
  } finally {
    await handle.close()
  }
}

/** The runs of a domain that have a directory on this host, dead or alive, by their marks. */
export async function findRuns(uuid: string): Promise<Map<string, RunRecord>> {
  const found = new Map<string, RunRecord>()
  for (const name of await readdir(DEFAULT_PLACE).catch(() => [])) {
    if (ownerIn(name)?.mark !== name) continue
    const record = await readRecord(`${DEFAULT_PLACE}/${name}`)
    if (record?.uuid !== uuid) continue
    // A record may be forged by the user that QEMU runs as: only what bears the mark is believed.
    const directories = record.directories.filter((path) => path.endsWith(`/${name}`))
    found.set(name, { ...record, directories: directories.reverse() })
  }
  return found
}

/** Anybody may make a directory with such a name; of a record of somebody else's little is believed. */
async function readRecord(directory: string): Promise<RunRecord | undefined> {
  try {
    const { text, isTrusted } = await readSmallFile(`${directory}/${RECORD}`)
    const record = JSON.parse(text)
    const { uuid, quiesce, discards, directories } = record ?? {}
    const isList = Array.isArray(directories) && directories.every((one) => typeof one === 'string')
    if (!isList) return undefined
    if (!isTrusted) {
      return { uuid: `${uuid}`, quiesce: quiesce === true, discards: 0, directories: [directory] }
    }
    const isCount = Number.isInteger(discards) && discards >= 0 && discards <= MAX_DISKS
    return {
      uuid: `${uuid}`,
      quiesce: quiesce === true,
      discards: isCount ? discards : 0,
      directories,
    }
  } catch {
    return undefined
  }
}

/** Without waiting for whoever writes to a pipe. */
async function readSmallFile(path: string): Promise<{ text: string; isTrusted: boolean }> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const status = await file.stat()
    if (!status.isFile() || status.size > MAX_RECORD)
      throw new BackupError('IO', path, 'is no record')
    const text = (await file.readFile()).toString()
    return { text, isTrusted: status.uid === process.getuid?.() || status.uid === 0 }
  } finally {
    await file.close()
  }
}

/** The directory of a run in which a file of a job is; undefined if it is not in one. */
export function placeOf(file: string): string | undefined {
  const directory = dirname(file)
  return ownerIn(directory) ? directory : undefined
}
