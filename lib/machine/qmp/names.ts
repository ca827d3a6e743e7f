/** The names of everything that a run makes in a machine: by them it is found again, and others' things are left alone. */
import { RUN_ID, RUN_PREFIX } from '../machine.ts'

/** What a run makes. */
export type Part =
  /** Node of the temporary image, and its file. */
  | 'tmp'
  /** Filter node that copies before a write. */
  | 'cbw'
  /** Node by which the point in time is read. */
  | 'acc'
  | 'job'
  | 'exp'
  /** Bitmap with the changes up to the instant. */
  | 'frozen'
  /** Bitmap that says that the run has stopped the guest for the instant. */
  | 'paused'
  /** Bitmap that says that the run has had the guest's file systems frozen for the instant. */
  | 'quiesced'

const PARTS = /^(tmp|cbw|acc|job|exp)[0-9a-z]+(?:\.raw)?$|^(frozen|paused|quiesced)$/

/** Before the checkpoint's name, in the name of the bitmap that is to become its. */
const NEW = 'new-'

/** What a name says. */
export interface OwnName {
  run: string
  part?: Part
  /** Of a bitmap that records from the instant on: the checkpoint whose name it gets when the backup is stored. */
  becomes?: string
  /** Of a mark, as the driver for disks at rest makes them: the checkpoint that it is about. */
  marks?: string
}

/** @param index of the disk, up to 1295: QEMU's names of nodes have at most 31 bytes */
export function nameOf(run: string, part: Part, index?: number): string {
  return `${RUN_PREFIX}${run}-${part}${index?.toString(36) ?? ''}`
}

/** Name of the bitmap that records for a checkpoint until the backup is stored. */
export function newBitmap(run: string, checkpoint: string): string {
  return `${RUN_PREFIX}${run}-${NEW}${checkpoint}`
}

/** The last name of the directory of the NBD server's socket. */
export function serverDirectory(run: string): string {
  return `${RUN_PREFIX}${run}-server`
}

/** Reads a name; undefined for one that no run of ours gave. */
export function readName(name = ''): OwnName | undefined {
  if (!name.startsWith(RUN_PREFIX)) return undefined
  const [run, ...words] = name.slice(RUN_PREFIX.length).split('-')
  const rest = words.join('-')
  if (!RUN_ID.test(run) || rest === '') return undefined
  const { 1: numbered, 2: single = numbered } = PARTS.exec(rest) ?? []
  if (single !== undefined) return { run, part: single as Part }
  if (rest.startsWith(NEW)) return { run, becomes: rest.slice(NEW.length) }
  return { run, marks: rest }
}

/** Whether a run of ours gave it. */
export function isOurs(name: string | undefined): boolean {
  return readName(name) !== undefined
}
