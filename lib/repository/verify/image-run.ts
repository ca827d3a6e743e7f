import { BackupError, ioError, throwIfAborted } from '../../errors.ts'
import type { Progress } from '../../progress.ts'
import type { Lineage } from '../lineage.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { MAX_CHAIN } from '../parent-images.ts'
import type { DiskRecord, PointRecord } from '../record.ts'
import type { VerifiedImage } from '../verified.ts'
import type { RepositoryFinding } from './finding.ts'
import type { Outcomes } from './outcomes.ts'
import { verifyImage } from './verify-image.ts'

/** How images are verified. */
export interface ImageJob {
  /** Whether the content of an image is read. */
  isRead(disk: DiskRecord): boolean
  /** Takes the progress of reading an image. */
  progressOf(disk: DiskRecord): (progress: Progress) => void
  signal?: AbortSignal
}

/** What was found of an image, for those that build on it. */
interface State {
  /** Images of its chain. */
  length: number
  /** File name of the image that is bad, this one or one below. */
  bad?: string
}

/** Images of a chain that can be restored. */
const LONGEST = MAX_CHAIN + 1

/** Failures that say nothing about an image. */
const OF_THE_CALL: readonly BackupError['code'][] = ['ABORTED', 'CALLBACK', 'INTERNAL']
/** Failures that say what a later look will find, too. */
const OF_THE_IMAGE: readonly BackupError['code'][] = ['BAD_IMAGE', 'DIFFERENT', 'UNSUPPORTED']

/** Looks at the images of a machine, each after those that it builds on. */
export class ImageRun {
  readonly #folder: MachineFolder
  readonly #lineage: Lineage
  readonly #outcomes: Outcomes
  readonly #job: ImageJob
  readonly #states = new Map<DiskRecord, State>()

  constructor(folder: MachineFolder, lineage: Lineage, outcomes: Outcomes, job: ImageJob) {
    this.#folder = folder
    this.#lineage = lineage
    this.#outcomes = outcomes
    this.#job = job
  }

  /** @throws BackupError ABORTED */
  async look({ point }: PointRecord, disk: DiskRecord): Promise<RepositoryFinding> {
    const { machine, directory } = this.#folder
    const file = `${directory}/${disk.image}`
    throwIfAborted(this.#job.signal, file)
    const read = this.#job.isRead(disk)
    const last = read ? undefined : this.#outcomes.last(disk)
    const below = this.#below(file, disk)
    // What is wrong below is told of the image there. Without reading it is enough to look at each once.
    const open = read && below.fault === undefined && below.bad === undefined
    const compared = await this.#compare(file, disk, { read, below: open })
    const fault = compared ?? below.fault ?? faultThen(file, last)
    this.#states.set(disk, {
      length: below.length + 1,
      bad: fault ? disk.image : below.bad,
    })
    const found = {
      machine,
      point,
      disk: disk.name,
      file,
      read,
      ...(last && { verified: { time: last.time, same: last.same } }),
      ...(below.bad !== undefined && { dependsOn: below.bad }),
      notes: [],
    }
    if (fault) {
      const { code, message: difference, errno } = fault
      const kind = errno === 'ENOENT' ? 'missing' : 'image'
      return { kind, ...found, same: false, difference, code }
    }
    if (below.bad === undefined) return { kind: 'image', ...found, same: true }
    const difference = `${file}: builds on ${below.bad}, which is not good`
    return { kind: 'image', ...found, same: false, difference }
  }

  /** Why an image is not as recorded. Its outcome is remembered if it was read. */
  async #compare(
    file: string,
    disk: DiskRecord,
    how: { read: boolean; below: boolean },
  ): Promise<BackupError | undefined> {
    let fault: BackupError | undefined
    try {
      const { signal, progressOf } = this.#job
      const onProgress = how.read ? progressOf(disk) : undefined
      await verifyImage(file, disk, { ...how, signal, onProgress })
    } catch (error) {
      fault = ioError(file, error)
      if (OF_THE_CALL.includes(fault.code)) throw fault
    }
    const isTold = !fault || OF_THE_IMAGE.includes(fault.code) || fault.errno === 'EIO'
    if (how.read && isTold) await this.#outcomes.add(disk, fault === undefined)
    return fault
  }

  /** What there is below an image, and what is wrong with the chain. */
  #below(file: string, disk: DiskRecord): State & { fault?: BackupError } {
    const parent = this.#lineage.parentOf(disk)
    if (parent === undefined) return { length: 0 }
    const broken = (why: string) => new BackupError('BAD_IMAGE', file, why)
    if (typeof parent === 'string') return { length: 0, fault: broken(parent) }
    const state = this.#states.get(parent.disk)
    if (!state) return { length: 0, fault: broken('builds on itself, as the records say') }
    if (state.length < LONGEST) return state
    return { ...state, fault: broken(`its chain has more than ${LONGEST} images`) }
  }
}

/** An image that is not read now is as it was the last time. */
function faultThen(file: string, last: VerifiedImage | undefined): BackupError | undefined {
  if (!last || last.same) return undefined
  return new BackupError('DIFFERENT', file, `was not as recorded when it was read, ${last.time}`)
}
