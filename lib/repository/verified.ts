/**
 * When the images of a machine were last verified, and with what outcome. Several programs may verify at the
 * same time, and none of them has the machine's lock: the file is replaced whole, by whoever read it last.
 */
import { setTimeout } from 'node:timers/promises'
import { type BackupError, isBackupError } from '../errors.ts'
import { BOOLEAN, described, dictionary, record, TEXT, whole } from '../schema.ts'
import { jsonText, publishText } from './files.ts'
import { type Form, readForm, TIME } from './form.ts'
import type { Lineage } from './lineage.ts'
import type { MachineFolder } from './machine-folder.ts'
import type { DiskRecord } from './record.ts'

export const VERIFIED = '.verified.json'
const TRIES = 100
const WAIT_MS = 20

/** Outcome of verifying something in a repository. */
export interface Verified {
  /** When, ISO 8601. */
  time: string
  /** It was sound, and its content as recorded. */
  same: boolean
}

/** Outcome for an image. */
export interface VerifiedImage extends Verified {
  /** `content.checksum` of the record: of an image with other content this says nothing. */
  checksum: string
}

/** By the names of the images' files. */
export type VerifiedImages = ReadonlyMap<string, VerifiedImage>

interface Memory {
  version: 1
  images: Record<string, VerifiedImage>
}

export const VERIFIED_FORM: Form<Memory> = {
  what: 'a list of verified images',
  version: 'version',
  // Some hundred thousand.
  most: 64 * 2 ** 20,
  rule: record<Memory>(
    {
      version: whole(1, 1),
      images: described(
        dictionary(
          record<VerifiedImage>(
            {
              time: described(TIME, 'When it was verified the last time.'),
              same: described(BOOLEAN, 'It was sound, and its content as recorded.'),
              checksum: described(TEXT, 'Of the content in its record then.'),
            },
            {},
            { open: true },
          ),
        ),
        'By the names of the files.',
      ),
    },
    {},
    { open: true },
  ),
}

/**
 * Reads what is remembered. Of a file that cannot be read nothing is: what it says was verified is verified
 * again.
 */
export async function readVerified(folder: MachineFolder): Promise<VerifiedImages> {
  try {
    return await read(folder)
  } catch {
    return new Map()
  }
}

/**
 * Adds outcomes to what is remembered, of the same image the later one, and forgets images that are gone.
 * @throws BackupError IO; UNSUPPORTED if a newer version of this program wrote the file
 */
export async function rememberVerified(
  folder: MachineFolder,
  outcomes: VerifiedImages,
): Promise<void> {
  const path = `${folder.directory}/${VERIFIED}`
  // Read when the file to be replaced is open: if another has it by then, publishing fails.
  const text = async () => {
    const images = new Map(await read(folder).catch(unlessBroken))
    for (const [image, outcome] of outcomes) {
      const known = images.get(image)
      if (!known || known.time <= outcome.time) images.set(image, outcome)
    }
    const files = new Set(await folder.files())
    const kept = [...images]
      .filter(([image]) => files.has(image))
      .sort(([a], [b]) => (a < b ? -1 : 1))
    const memory: Memory = { version: 1, images: Object.fromEntries(kept) }
    return jsonText(memory)
  }
  for (let tries = 1; ; tries++) {
    try {
      return await publishText(path, text, { force: true })
    } catch (error) {
      if (tries === TRIES || !isOvertaken(error)) throw error
      await setTimeout(WAIT_MS * Math.random())
    }
  }
}

/**
 * When points were last verified with all that their images build on: the outcome is good if that of each of
 * these images was, and as old as the oldest of them.
 * @param lineage of all of the machine's points
 * @returns by name; a point of which an image was never verified, and none was bad, is left out
 */
export function verifiedPoints(lineage: Lineage, images: VerifiedImages): Map<string, Verified> {
  if (images.size === 0) return new Map()
  const outcomes = new Map<DiskRecord, Verified | undefined>()
  const found = new Map<string, Verified>()
  for (const { point, disks } of lineage.parentsFirst()) {
    for (const disk of disks) {
      const remembered = images.get(disk.image)
      const own = remembered?.checksum === disk.content.checksum ? remembered : undefined
      const parent = lineage.parentOf(disk)
      const below = typeof parent === 'object' ? outcomes.get(parent.disk) : undefined
      outcomes.set(disk, parent === undefined ? own : together(own, below))
    }
    const all = disks.map((disk) => outcomes.get(disk))
    const outcome = all.length === 0 ? undefined : all.reduce(together)
    if (outcome) found.set(point, { time: outcome.time, same: outcome.same })
  }
  return found
}

/** Of two images that are only good together. Which of them is not known, undefined, may be bad. */
function together(a: Verified | undefined, b: Verified | undefined): Verified | undefined {
  if (a?.same && b?.same) return a.time < b.time ? a : b
  const [bad, other] = a && !a.same ? [a, b] : [b, a]
  if (!bad || bad.same) return undefined
  return other && !other.same && other.time > bad.time ? other : bad
}

/** @throws BackupError BAD_RECORD, UNSUPPORTED, IO */
async function read({ directory }: MachineFolder): Promise<VerifiedImages> {
  const memory = await readForm(`${directory}/${VERIFIED}`, VERIFIED_FORM)
  return new Map(Object.entries(memory?.images ?? {}))
}

/** A broken file is replaced. */
function unlessBroken(error: BackupError): VerifiedImages {
  if (error.code === 'BAD_RECORD') return new Map()
  throw error
}

/** Whether another replaced the file in this moment, or removed what looked left over. */
function isOvertaken(error: unknown): boolean {
  if (!isBackupError(error)) return false
  return ['IN_USE', 'TARGET_EXISTS'].includes(error.code) || error.errno === 'ENOENT'
}
