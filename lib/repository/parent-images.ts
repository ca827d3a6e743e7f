import { hashImage } from '../backup/content-hash.ts'
import { ioError, throwIfAborted } from '../errors.ts'
import { stat } from '../files.ts'
import { readHeader } from '../format/qcow2/qcow2-image.ts'
import { type OpenFile, openFile } from '../image/file.ts'
import { lockFile, READING } from '../image/locks.ts'
import { quoted } from '../text.ts'
import { type DiskAt, Lineage } from './lineage.ts'
import { imageName } from './names.ts'
import type { DiskRecord, PointRecord } from './record.ts'

/** A chain that is longer gets a full backup: libvirt opens 200 images, this program 256. */
export const MAX_CHAIN = 190

/** Images in a repository, compared with their records; each is looked at once. */
export class ParentImages {
  readonly #directory: string
  readonly #lineage: Lineage
  readonly #signal: AbortSignal | undefined
  readonly #content: boolean
  readonly #faults = new Map<string, string | undefined>()

  /** @param options `content`: also read those whose times are not as recorded. Default true */
  constructor(
    { directory }: { readonly directory: string },
    points: readonly PointRecord[],
    { signal, content = true }: { signal?: AbortSignal; content?: boolean } = {},
  ) {
    this.#directory = directory
    this.#lineage = new Lineage(points)
    this.#signal = signal
    this.#content = content
  }

  /**
   * Why no image is to be made over one, and none is to be restored: it, or one that it builds on, is not as
   * it was recorded.
   * @param most images that its chain may have
   * @returns undefined if one can be
   * @throws BackupError ABORTED
   */
  async fault(parent: DiskAt, most = MAX_CHAIN): Promise<string | undefined> {
    let at = parent
    for (let length = 1; ; length++) {
      if (length > most) return `the last backup has a chain of ${most} images or more`
      const fault = await this.#imageFault(at.disk)
      if (fault !== undefined) return fault
      const below = this.#lineage.parentOf(at.disk)
      if (typeof below !== 'object') return below
      at = below
    }
  }

  async #imageFault(disk: DiskRecord): Promise<string | undefined> {
    if (!this.#faults.has(disk.image)) this.#faults.set(disk.image, await this.#look(disk))
    return this.#faults.get(disk.image)
  }

  async #look(disk: DiskRecord): Promise<string | undefined> {
    const path = `${this.#directory}/${disk.image}`
    throwIfAborted(this.#signal, path)
    let file: OpenFile
    try {
      file = await openFile(path)
    } catch (error) {
      return ioError(path, error).message
    }
    try {
      lockFile(file.handle, path, READING)
      const fault = await this.#compare(file, disk)
      return fault && `the image ${quoted(disk.image)} of a backup ${fault}`
    } catch (error) {
      throwIfAborted(this.#signal, path)
      return ioError(path, error).message
    } finally {
      await file.handle.close()
    }
  }

  async #compare(file: OpenFile, disk: DiskRecord): Promise<string | undefined> {
    const fault = await metadataFault(file, disk)
    if (fault !== undefined) return fault
    if (!this.#content) return undefined
    if ((await modifiedOf(file.path)) === disk.modified) return undefined
    // Written to, or only copied: its content tells.
    const { checksum } = await hashImage(file, await readHeader(file), { signal: this.#signal })
    if (checksum !== disk.content.checksum) return 'holds other content than recorded'
    await markUnmodified(file, disk)
    return undefined
  }
}

/**
 * How an image differs from its record, as far as its metadata tell.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function metadataFault(
  file: OpenFile,
  { name, fileSize, virtualSize, parent }: DiskRecord,
): Promise<string | undefined> {
  if (file.size !== fileSize) return `has ${file.size} bytes, not ${fileSize} as recorded`
  const header = await readHeader(file)
  if (header.virtualSize !== virtualSize) return 'is of another disk size than recorded'
  const backing = parent === undefined ? undefined : imageName(name, parent)
  if (header.backingFile !== backing) return 'has another backing file than recorded'
  const { backingFormat } = header.extensions
  if (backing === undefined || backingFormat === 'qcow2') return undefined
  // As raw it would be read as something else, of nearly the same size.
  return `names the format ${quoted(backingFormat ?? '')} for its backing file, not 'qcow2'`
}

/** Gives an image whose content is as recorded its time, so that it need not be read for that again. */
export async function markUnmodified(file: OpenFile, disk: DiskRecord): Promise<void> {
  if ((await modifiedOf(file.path)) === disk.modified) return
  // Seconds, of which the system makes whole nanoseconds.
  const modified = (Date.parse(disk.modified) + 0.5) / 1000
  await file.handle.utimes(modified, modified).catch(() => {})
}

/** When a file was last written to, ISO 8601. */
export async function modifiedOf(path: string): Promise<string> {
  const { mtimeMs } = await stat(path)
  return new Date(Number(mtimeMs)).toISOString()
}
