import { BackupError, ioError, throwIfAborted } from '../../errors.ts'
import type { ControlOptions } from '../../options.ts'
import { type Progress, paced } from '../../progress.ts'
import { requireMachine } from '../find-point.ts'
import { type Inventory, takeInventory } from '../inventory.ts'
import { Lineage } from '../lineage.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { recordName } from '../names.ts'
import type { DiskRecord } from '../record.ts'
import type { Repository } from '../repository.ts'
import { readVerified } from '../verified.ts'
import type { RepositoryFinding } from './finding.ts'
import { type Candidate, chooseSample } from './sample.ts'
import { verifyMachine } from './verify-machine.ts'

/** A machine of a repository, or one point of it. */
export interface MachineOrPoint {
  machine: string
  /** Default: all points. */
  point?: string
}

/** Options of `verifyRepository`. */
export interface VerifyRepositoryOptions extends ControlOptions {
  /** Only these machines and points, each point with all that its images build on. Default: everything. */
  only?: readonly MachineOrPoint[]
  /**
   * Read the content of so many per cent of the bytes only: of the images that nobody has read for the longest
   * time. All others are compared with their records as far as their metadata tell. Default: all is read.
   */
  sample?: number
}

/** A folder, and the points of it that are verified; all if there are none. */
interface Part {
  folder: MachineFolder
  points?: Set<string>
}

/** Failures by which one machine's folder cannot be verified, and the others can. */
const OF_A_FOLDER: readonly BackupError['code'][] = ['IO', 'BAD_RECORD', 'UNSUPPORTED']

/** An image that may be read. */
interface ImageAt extends Candidate {
  folder: MachineFolder
  image: string
}

/**
 * Verifies what is in a repository. One finding for each image, as it comes, whatever is wrong with others.
 * @throws BackupError USAGE if there is no such machine or point; IO, ABORTED
 */
export async function* verifyRepository(
  repository: Repository,
  { only, sample, signal, onProgress }: VerifyRepositoryOptions = {},
): AsyncGenerator<RepositoryFinding, void, undefined> {
  const parts = await partsOf(repository, only)
  const chosen = await chosenImages(parts, sample ?? 100, signal)
  const sampled = sample === undefined ? undefined : new Set(chosen.map(keyOf))
  const size = chosen.reduce((sum, { bytes }) => sum + bytes, 0)
  const report = paced(onProgress)
  let [begun, dataBytes] = [0, 0]
  for (const { folder, points } of parts) {
    const isRead = ({ image }: DiskRecord) => sampled?.has(keyOf({ folder, image })) ?? true
    const progressOf = ({ fileSize }: DiskRecord) => {
      const [start, before] = [begun, dataBytes]
      begun += fileSize
      return (now: Progress) => {
        dataBytes = before + now.dataBytes
        // An image is as long as it takes to read; the disk may be far larger.
        const position = start + Math.floor((fileSize * now.position) / Math.max(now.size, 1))
        report?.({ phase: 'verify', position, size, dataBytes })
      }
    }
    try {
      yield* verifyMachine(folder, { points, isRead, progressOf, signal, onProgress })
    } catch (error) {
      const { code, message: difference } = ioError(folder.directory, error)
      if (!OF_A_FOLDER.includes(code)) throw error
      const { machine, directory: file } = folder
      yield { kind: 'record', machine, file, same: false, difference, code, notes: [] }
    }
  }
  report?.({ phase: 'verify', position: size, size, dataBytes }, true)
}

/** @throws BackupError USAGE, IO, BAD_RECORD */
async function partsOf(
  repository: Repository,
  only: readonly MachineOrPoint[] | undefined,
): Promise<Part[]> {
  if (!only) return (await repository.folders()).map((folder) => ({ folder }))
  const parts = new Map<string, Part>()
  for (const { machine, point } of only) {
    const folder = repository.machine(machine)
    const files = await folder.files()
    if (files.length === 0) await requireMachine(repository, machine)
    if (point !== undefined && !files.includes(recordName(point))) {
      throw new BackupError('USAGE', `${machine}@${point}`, 'there is no such point')
    }
    const part = parts.get(machine)
    if (point === undefined || (part && !part.points)) parts.set(machine, { folder })
    else parts.set(machine, { folder, points: new Set([...(part?.points ?? []), point]) })
  }
  return [...parts.values()]
}

/** The images whose content is read. */
async function chosenImages(
  parts: readonly Part[],
  percent: number,
  signal: AbortSignal | undefined,
): Promise<ImageAt[]> {
  const images: ImageAt[] = []
  for (const { folder, points: chosen } of parts) {
    throwIfAborted(signal, folder.directory)
    // A folder that cannot be read is told when it is its turn.
    const { points } = await takeInventory(folder, signal).catch(unlessAborted)
    const last = await readVerified(folder)
    for (const { time: made, disks } of new Lineage(points).withAncestors(chosen)) {
      for (const { image, fileSize: bytes, content } of disks) {
        const verified = last.get(image)
        const isOfIt = verified?.checksum === content.checksum
        images.push({ folder, image, made, bytes, ...(isOfIt && { verified }) })
      }
    }
  }
  return [...chooseSample(images, percent, new Date())]
}

function keyOf({ folder, image }: Pick<ImageAt, 'folder' | 'image'>): string {
  return `${folder.directory}/${image}`
}

function unlessAborted(error: BackupError): Pick<Inventory, 'points'> {
  if (!OF_A_FOLDER.includes(error.code)) throw error
  return { points: [] }
}
