import { DiscardAfterCopy } from '../copy/discard.ts'
import { HeldFirst } from '../copy/held-first.ts'
import type { HeldRanges } from '../copy/held-ranges.ts'
import { copyDisk } from '../copy/job.ts'
import type { JobOptions } from '../copy/spec.ts'
import { Stash } from '../copy/stash.ts'
import { type Location, locate, movedNotes } from '../copy/target/location.ts'
import {
  openTarget,
  publishAll,
  type SourceIdentity,
  type Target,
} from '../copy/target/open-target.ts'
import type { Publication } from '../copy/target/target.ts'
import { BackupError, ioError, usageError, withNotes } from '../errors.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import { isImageUrl, shownLocation } from '../imageio/client/address.ts'
import type { CopyCounters } from '../native.ts'
import { mark } from '../source/bitmaps/dirty-mappings.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { openSource } from '../source/open-source.ts'
import type { Disk, Source } from '../source/source.ts'
import { roundDown } from '../units.ts'
import { type Backing, openBacking, requireApart } from './backing.ts'
import { requireRoom } from './capacity.ts'
import { contentOf } from './content-hash.ts'
import { jobOptions } from './job-options.ts'
import { manifestOf } from './manifest.ts'
import { corruptNotes, sourceNotes, targetNotes } from './notes.ts'
import { type ManifestPublication, openManifest } from './publish-manifest.ts'
import type { RecordedContent } from './recorded-content.ts'
import type {
  CopyOptions,
  CopyResult,
  DiscardOptions,
  ImageOptions,
  OpenOptions,
  TableOptions,
  VerifyingOptions,
} from './types.ts'
import { verifyWritten } from './verify-content.ts'

/** Source and target of a copy. */
export interface CopyRequest {
  from: string | CustomSource
  /** A path; if `openTarget` is given, a name for messages. */
  to: string
  format: 'qcow2' | 'raw'
  options: CopyOptions &
    OpenOptions &
    ImageOptions &
    TableOptions &
    DiscardOptions &
    VerifyingOptions
  /** Path of the target's backing file; only dirty ranges are copied then. */
  previous?: string
  /** How that is opened. Default: as the source. */
  previousOptions?: OpenOptions
  /** Which ranges are dirty: contiguous runs from 0 to the size. Default: the source's bitmap says it. */
  changed?: () => AsyncIterable<readonly DirtyRun[]>
  /** Take the hash of the content in any case. */
  hash?: boolean
  /** Images take the place of images only; a disk that of anything. */
  replaces: 'image' | 'disk'
  /**
   * Tells which ranges' old content the image that keeps the point in time holds now, in order, of all
   * that the guest has overwritten. To be given wherever it can be: QEMU before 8.0 says of some of them
   * that they are zero, and is asked only where this is known. With `discardAfterCopy`, and a target that is a
   * file, they are also copied first, through a temporary file beside the target, and discarded. Asked again and
   * again during the copy.
   */
  held?: HeldRanges
  /** Opens a target that is not a file or device. */
  openTarget?: (sources: readonly SourceIdentity[]) => Promise<Target>
  /**
   * The source's recorded content, with which the data read is compared.
   * @throws BackupError DIFFERENT if its metadata already show that it is not the same
   */
  recorded?: (source: Source) => Promise<RecordedContent | undefined>
}

/**
 * A copy in two phases, so that several disks of one instant can be published together: first all is
 * read and written, then it gets its name. To be used in this order: `copy`, `verify` where that is
 * wanted, `publishSessions`; `discard` in any case. All throw BackupError.
 */
export interface CopySession {
  /** Of the source, bytes. */
  readonly virtualSize: number
  readonly target: Target
  /** Reads and writes everything. Nothing has a name yet. */
  copy(): Promise<void>
  /** What was copied first so far because it was held, in how many rounds. */
  readonly takenFirst: { bytes: number; rounds: number }
  /** Checks the image written, and compares it with the data read. */
  verify(): Promise<void>
  /** Publishes this one alone. */
  publish(): Promise<CopyResult>
  /** Releases everything and removes unpublished files. Never fails, may be called twice. */
  discard(): Promise<void>
}

/** Opens everything that a copy needs, and checks all that can be checked before a byte is written. */
export async function openSession(request: CopyRequest): Promise<CopySession> {
  const session = new Session(request)
  try {
    await session.open()
    return session
  } catch (error) {
    await session.discard()
    throw error
  }
}

/**
 * Publishes copies together: all get their names, or, if one cannot, none does.
 * @param sessions made by openSession, and copied
 * @param others that get theirs after them, or not either
 */
export async function publishSessions(
  sessions: readonly CopySession[],
  others: readonly Publication[] = [],
): Promise<CopyResult[]> {
  const all = sessions as readonly Session[]
  for (const session of all) await session.requireBacking()
  const left = await publishAll([...all.map((session) => session.publications), others])
  return await Promise.all(all.map((session, index) => session.result(index === 0 ? left : [])))
}

/** One copy from its beginning to its end, alone. */
export async function runSession(request: CopyRequest): Promise<CopyResult> {
  const session = await openSession(request)
  try {
    await session.copy()
    if (request.options.verify) await session.verify()
    return await session.publish()
  } finally {
    await session.discard()
  }
}

class Session implements CopySession {
  readonly #request: CopyRequest
  readonly #started = performance.now()
  #backing: Backing | undefined
  #source: Source | undefined
  #target: Target | undefined
  #manifest: ManifestPublication | undefined
  #job: JobOptions | undefined
  #discarding: DiscardAfterCopy | undefined
  #stash: Stash | undefined
  #first: HeldFirst | undefined
  #recorded: RecordedContent | undefined
  #counters: CopyCounters | undefined
  #isVerified = false
  readonly #notes: string[] = []

  constructor(request: CopyRequest) {
    this.#request = request
  }

  async open(): Promise<void> {
    const { to, openTarget: open } = this.#request
    if (!open && isImageUrl(to)) {
      throw usageError(shownLocation(to), 'takes no image but a disk, as restore writes it')
    }
    const location = open ? undefined : await locate(to)
    try {
      await this.#openWhatIsRead(location)
    } catch (error) {
      await location?.directory.close()
      throw error
    }
    await this.#openTarget(location)
    await this.#openStash(location)
    await requireRoom(this.#source!, this.#target!, this.#job!.format)
    this.#notes.push(...(await sourceNotes(this.#source!)))
    this.#notes.push(...corruptNotes(this.#backing?.chain.images))
  }

  async copy(): Promise<void> {
    const { unfinished } = this.#target!
    try {
      await this.#copy()
    } catch (error) {
      throw unfinished === undefined ? error : withNotes(error, [unfinished])
    }
  }

  async #copy(): Promise<void> {
    const [source, target] = [this.#source!, this.#target!]
    this.#counters = await copyDisk(this.#diskToCopy(source), target, this.#job!, {
      discarding: this.#discarding,
      first: this.#first,
      held: this.#request.held,
    })
    await this.#closeStash()
    await source.checkUnchanged()
    await this.requireBacking()
    this.#compareWithRecord()
    const manifest = this.#request.options.manifest
      ? manifestOf(target.path, this.#written(), {
          backingFile: this.#backing?.name,
          snapshot: source.snapshot?.name,
        })
      : undefined
    await this.#manifest?.write(manifest)
  }

  /** Verifying takes long, and others publish at the same time: the last look is right before. */
  async requireBacking(): Promise<void> {
    await this.#backing?.checkUnchanged()
  }

  async verify(): Promise<void> {
    await verifyWritten(this.#target!, this.#written(), this.#job!)
    if (!this.#backing) await this.#compareWithServer()
    this.#isVerified = true
  }

  /**
   * Compares the data read with a hash that the source's server takes, if it does: a second opinion on
   * what came over the network.
   * @throws BackupError DIFFERENT, IO, ABORTED
   */
  async #compareWithServer(): Promise<void> {
    const source = this.#source!
    const { content } = this.#written()
    if (!source.checksum || !content) return
    const served = await source.checksum(content.blockSize)
    if (served === content.checksum) return
    const why = `the server has other data than was read: its checksum is ${served}, not ${content.checksum}`
    throw new BackupError('DIFFERENT', source.name, why)
  }

  async publish(): Promise<CopyResult> {
    const [result] = await publishSessions([this])
    return result
  }

  get virtualSize(): number {
    return this.#source!.size
  }

  get target(): Target {
    return this.#target!
  }

  get takenFirst() {
    return this.#first?.taken ?? { bytes: 0, rounds: 0 }
  }

  async discard(): Promise<void> {
    await this.#closeStash()
    await this.#manifest?.discard()
    await this.#target?.discard()
    await this.#source?.close()
    this.#source = undefined
    await this.#backing?.close()
    this.#backing = undefined
  }

  /** In the order in which they get their names. */
  get publications() {
    return this.#manifest ? [this.#manifest, this.#target!] : [this.#target!]
  }

  /** @param left files that publishing could not clean up */
  async result(left: readonly string[]): Promise<CopyResult> {
    await this.#discarding?.finish()
    const { format, to, options } = this.#request
    const [source, target] = [this.#source!, this.#target!]
    const at = await target.located()
    const notes = [
      ...(source.bitmap?.notes ?? []),
      ...(source.notes ?? []),
      ...this.#notes,
      ...discardNotes(source, this.#discarding),
      ...(this.#first?.note ? [this.#first.note] : []),
      ...targetNotes(source, target, format),
      ...movedNotes(target.path, at, this.#backing?.name),
      ...left,
    ]
    return {
      target: at === target.path ? to : at,
      ...this.#written(),
      ...(await target.sizes()),
      elapsedSeconds: (performance.now() - this.#started) / 1000,
      ...(this.#isVerified && { verified: true }),
      ...(options.manifest && { manifest: await this.#manifest!.located() }),
      ...(notes.length > 0 && { notes }),
    }
  }

  async #openWhatIsRead(location: Location | undefined): Promise<void> {
    const { from, previous, options, format, recorded, held, hash = false } = this.#request
    if (previous !== undefined && location) {
      const { previousOptions = options } = this.#request
      const { signal } = options
      this.#backing = await openBacking(previous, location, { ...previousOptions, signal })
    }
    this.#source = await openSource(from, { ...options, doubtsHoles: held !== undefined })
    if (this.#backing) requireApart(this.#source, this.#backing)
    const job = jobOptions(format, this.#source.size, options, this.#backing)
    this.#discarding = discardingOf(this.#source, options)
    this.#recorded = await recorded?.(this.#source)
    this.#job = { ...job, hash: job.hash || hash || this.#recorded !== undefined }
  }

  /** The source, with other changes than those of a bitmap where they are given. */
  #diskToCopy(source: Source): Disk {
    const { changed } = this.#request
    if (!changed) return source
    const { name, size, stores } = source
    return {
      name,
      size,
      stores,
      mappings: () => source.mappings(),
      dirtyMappings: () => mark(source.mappings(), changed()),
      interrupt: () => source.interrupt?.(),
    }
  }

  async #openTarget(location: Location | undefined): Promise<void> {
    const { openTarget: open, options, replaces } = this.#request
    const { force = false, manifest = false } = options
    const sources = [...this.#source!.stores, ...(this.#backing?.files ?? [])]
    this.#target = location
      ? await openTarget(location, { force, replaces, sources })
      : await open!(sources)
    this.#manifest = await openManifest(this.#target, { wanted: manifest, force, sources })
  }

  /** Without one the backup goes on as without `held`. */
  async #openStash(location: Location | undefined): Promise<void> {
    const { held } = this.#request
    const discarding = this.#discarding
    if (!held || !discarding || !location || this.#target!.kind !== 'file') return
    const source = this.#source!
    try {
      // Only whole granules go there.
      this.#stash = await Stash.beside(location, roundDown(source.size, discarding.granule))
    } catch (error) {
      const { why } = ioError(location.path, error)
      this.#notes.push(`what the point in time holds was not copied first: ${why}`)
      return
    }
    this.#first = new HeldFirst(source, held, this.#stash, discarding, this.#job!)
  }

  async #closeStash(): Promise<void> {
    await this.#stash?.discard()
    this.#stash = undefined
  }

  #written() {
    const { checksum, ...counters } = this.#counters!
    const { options, hash } = this.#request
    const { manifest, verify } = options
    const virtualSize = this.#source!.size
    return { virtualSize, ...counters, ...(manifest || verify || hash ? contentOf(checksum) : {}) }
  }

  /** @throws BackupError DIFFERENT */
  #compareWithRecord(): void {
    if (!this.#recorded) return
    const { notes, difference } = this.#recorded.compare(this.#counters!.checksum!)
    this.#notes.push(...notes)
    if (difference === undefined) return
    const { inPlace, path } = this.#target!
    const why = inPlace ? `${difference}; ${path} was overwritten with it` : difference
    throw new BackupError('DIFFERENT', this.#source!.name, why)
  }
}

function discardingOf(source: Source, options: DiscardOptions): DiscardAfterCopy | undefined {
  const granule = options.discardAfterCopy
  if (granule === undefined) return undefined
  return new DiscardAfterCopy(source.discarding(granule), granule, source.size)
}

function discardNotes(source: Source, discarding?: DiscardAfterCopy): string[] {
  if (!discarding?.failure) return []
  const { message } = ioError(source.name, discarding.failure)
  return [`the backup is complete, but not all was discarded at the source: ${message}`]
}
