import { addStored, Bits } from '../edit/bits.ts'
import type { EditedImage } from '../edit/edited-image.ts'
import { type NewBitmap, storeBitmaps } from '../edit/store-bitmaps.ts'
import { unshareTables } from '../edit/unshare.ts'
import { BackupError, ioError, throwIfAborted } from '../errors.ts'
import {
  type Bitmap,
  bitmapIsTooLarge,
  bitmapTableSize,
  defaultGranularity,
  granularityBitsOf,
} from '../format/qcow2/bitmaps.ts'
import { MAX_BITMAP_NAME, MAX_BITMAPS } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import { diskOf, type ImageDisk } from '../image/steps.ts'
import { requireApart } from '../image/storage.ts'
import type { ControlOptions } from '../options.ts'
import { positions } from '../progress.ts'
import { encodeText, quoted } from '../text.ts'
import { Turns } from '../turns.ts'
import { withBitmapsOf } from './open-bitmaps.ts'

/** An operation on a bitmap of an image. */
export type BitmapOperation =
  /** Adds it, without a bit set, recording. `granularity`: bytes; default: the cluster size, from 4 to 64 KiB. */
  | { kind: 'add'; granularity?: number }
  /** `remove-all` removes every bitmap of the image, whichever is named. */
  | { kind: 'remove' | 'remove-all' | 'clear' | 'enable' | 'disable' }
  /**
   * Sets the bits that another bitmap has set: of the same image, or of the image at path `from`.
   * Granularities may differ; the disks are of the same size.
   */
  | { kind: 'merge'; source: string; from?: string; format?: 'raw' | 'qcow2' }

/** A bitmap that is to be added with bits. */
export interface AddedBitmap {
  name: string
  /** Bytes; default as in BitmapOperation. */
  granularity?: number
  recording: boolean
}

const HINT = 'Try block-dirty-bitmap-remove to delete this bitmap from disk'

/** The bitmaps of an image while they are edited. */
export class BitmapEdit {
  readonly #image: EditedImage
  readonly #name: string
  readonly #signal: AbortSignal | undefined
  readonly #tell: ReturnType<typeof positions>
  readonly #turns: Turns
  #bitmaps: NewBitmap[]
  /** Bitmaps that are not current go, too. */
  #forgetStale: boolean

  /** @param before the operations before, which it goes on from */
  constructor(
    image: EditedImage,
    name: string,
    { signal, onProgress }: ControlOptions,
    before?: BitmapEdit,
  ) {
    this.#signal = signal
    this.#turns = new Turns(image.file.path, signal)
    this.#tell = positions('bitmaps', image.header.virtualSize, onProgress)
    this.#image = image
    this.#name = name
    this.#forgetStale = before ? before.#forgetStale : false
    this.#bitmaps = before
      ? before.#bitmaps
      : image.bitmaps.map((stored) => ({ ...stored, stored }))
  }

  async run(operation: BitmapOperation): Promise<void> {
    throwIfAborted(this.#signal, this.#image.file.path)
    switch (operation.kind) {
      case 'add':
        return this.#add(operation.granularity)
      case 'remove':
        this.#find(this.#name)
        this.#bitmaps = this.#bitmaps.filter(({ name }) => name !== this.#name)
        return
      case 'remove-all':
        this.#bitmaps = []
        this.#forgetStale = true
        return
      case 'clear':
        return this.#replace((bitmap) => ({ ...bitmap, bits: this.#bitsOf(bitmap) }))
      case 'enable':
      case 'disable':
        return this.#replace((bitmap) => ({ ...bitmap, auto: operation.kind === 'enable' }))
      case 'merge':
        return await this.#merge(operation)
    }
  }

  /** Bits for the bitmap as it is now. */
  emptyBits(): Bits {
    return this.#bitsOf(this.#find(this.#name))
  }

  /** Gives the bitmap other bits. */
  fill(bits: Bits, auto: boolean): void {
    this.#replace((bitmap) => ({ ...bitmap, bits, auto }))
  }

  /** Reports completion. */
  told(): void {
    this.#tell?.(this.#image.header.virtualSize, true)
  }

  /** @throws BackupError IO, and as storeBitmaps */
  async store(disk: ImageDisk = diskOf(this.#image.file.handle)): Promise<void> {
    try {
      const image = await unshareTables(this.#image, disk, this.#signal)
      const [signal, forgetStale] = [this.#signal, this.#forgetStale]
      await storeBitmaps(image, this.#bitmaps, { disk, signal, forgetStale })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).syscall) throw ioError(this.#image.file.path, error)
      throw error
    }
  }

  /** Adds bits to the bitmap, and adds that if it is not there. */
  async mergeBits(
    more: Bits,
    { granularity, recording }: Omit<AddedBitmap, 'name'>,
  ): Promise<void> {
    const { virtualSize } = this.#image.header
    if (virtualSize !== more.size) {
      const why = `has a disk of ${virtualSize} bytes, the compared disk has ${more.size}`
      throw this.#failed('Invalid argument', why)
    }
    const isNew = !this.#bitmaps.some(({ name }) => name === this.#name)
    if (isNew) this.#add(granularity)
    const bits = await this.#load(this.#usable(this.#find(this.#name)))
    await bits.merge(more, this.#turns)
    this.#replace((bitmap) => ({ ...bitmap, bits, auto: isNew ? recording : bitmap.auto }))
  }

  /** In the order in which QEMU judges. */
  #add(granularity?: number): void {
    const { header } = this.#image
    const name = this.#name
    if (name === '') throw this.#failed('Bitmap name cannot be empty', 'a bitmap needs a name')
    const granularityBits = this.#granularityBits(granularity)
    if (header.version < 3) {
      throw this.#failed(
        'Cannot store dirty bitmaps in qcow2 v2 files',
        'is of version 2, which holds no bitmaps',
      )
    }
    if (encodeText(name).length > MAX_BITMAP_NAME) {
      const qemu = `Name length exceeds maximum (${MAX_BITMAP_NAME} characters)`
      throw this.#failed(qemu, `the name of a bitmap has at most ${MAX_BITMAP_NAME} bytes`)
    }
    if (bitmapIsTooLarge(header, { granularityBits })) {
      const qemu = 'Too much space will be occupied by the bitmap. Use larger granularity'
      const why = `with a granularity of ${2 ** granularityBits} bytes it would be too large`
      throw this.#failed(qemu, why)
    }
    if (this.#bitmaps.length === MAX_BITMAPS) {
      const qemu = 'Maximum number of persistent bitmaps is already reached'
      throw this.#failed(qemu, `already has the maximum of ${MAX_BITMAPS} bitmaps`)
    }
    if (this.#bitmaps.some((bitmap) => bitmap.name === name)) {
      throw this.#failed(`Bitmap already exists: ${name}`, `already has a bitmap ${quoted(name)}`)
    }
    if (header.virtualSize === 0)
      throw this.#failed('No memory', 'a disk of 0 bytes cannot have a bitmap')
    const bitmap = { name, granularityBits, inUse: false, auto: true }
    this.#bitmaps.push({ ...bitmap, bits: this.#bitsOf(bitmap) })
  }

  #granularityBits(wanted?: number): number {
    const { header } = this.#image
    const granularity = wanted ?? defaultGranularity(header.clusterSize)
    const bits = granularityBitsOf(granularity)
    if (bits !== undefined) return bits
    const why = `a granularity of ${granularity} bytes is not a power of two from 512 to 2G`
    throw this.#failed('Granularity must be power of 2 and at least 512', why)
  }

  async #merge({
    source,
    from,
    format,
  }: Extract<BitmapOperation, { kind: 'merge' }>): Promise<void> {
    const target = this.#usable(this.#find(this.#name))
    if (from === undefined) {
      const other = this.#usable(this.#find(source))
      if (other.name === target.name) return
      const bits = await this.#load(target)
      await this.#addTo(bits, other)
      this.#replace((bitmap) => ({ ...bitmap, bits }))
      return
    }
    await withBitmapsOf(from, { format, argument: 'from' }, async (file, header, found) => {
      await requireApart(this.#image.file, [file])
      const other = this.#usable(this.#find(source, found, from), from)
      const bits = await this.#load(target)
      await this.#addStored(bits, file, header as Qcow2Header, other)
      this.#replace((bitmap) => ({ ...bitmap, bits }))
    })
  }

  /** The bits of a bitmap, to be changed. */
  async #load(bitmap: NewBitmap): Promise<Bits> {
    // Those of an operation before are nobody else's: if one fails none is stored.
    if (bitmap.bits) return bitmap.bits
    const bits = this.#bitsOf(bitmap)
    await this.#addTo(bits, bitmap)
    return bits
  }

  async #addTo(bits: Bits, { stored, bits: other }: NewBitmap): Promise<void> {
    const { file, header } = this.#image
    if (other) await bits.merge(other, this.#turns)
    else await this.#addStored(bits, file, header, stored as Bitmap)
  }

  async #addStored(bits: Bits, file: OpenFile, header: Qcow2Header, bitmap: Bitmap): Promise<void> {
    const size = header.virtualSize
    if (size !== bits.size) {
      const sizes = `destination size is ${bits.size}, source size is ${size}`
      const qemu = `Bitmaps are of different sizes (${sizes}) and can't be merged`
      throw this.#failed(
        qemu,
        `bitmap ${quoted(bitmap.name)} is of a disk of another size (${sizes})`,
        file.path,
      )
    }
    if (bitmap.tableSize !== bitmapTableSize(header, bitmap)) {
      const why = `bitmap ${quoted(bitmap.name)} has the wrong size for the disk`
      throw this.#failed('Invalid argument', why, file.path)
    }
    const [signal, onPosition] = [this.#signal, this.#tell]
    await addStored(bits, file, header, bitmap, { signal, onPosition })
  }

  #bitsOf({ granularityBits }: Pick<Bitmap, 'granularityBits'>): Bits {
    const { virtualSize, clusterSize } = this.#image.header
    return new Bits(virtualSize, 2 ** granularityBits, clusterSize)
  }

  #replace(change: (bitmap: NewBitmap) => NewBitmap): void {
    const found = this.#usable(this.#find(this.#name))
    this.#bitmaps = this.#bitmaps.map((bitmap) => (bitmap === found ? change(bitmap) : bitmap))
  }

  #find<B extends NewBitmap | Bitmap>(
    name: string,
    bitmaps: readonly B[] = this.#bitmaps as B[],
    path = this.#image.file.path,
  ): B {
    const found = bitmaps.find(isNamed(name))
    if (found) return found
    const isStale = path === this.#image.file.path && this.#image.stale?.some(isNamed(name))
    const why = isStale
      ? `its bitmap ${quoted(name)} is out of date: add it again, or remove all`
      : `has no bitmap ${quoted(name)}`
    throw this.#failed(`Dirty bitmap '${name}' not found`, why, path)
  }

  #usable<B extends NewBitmap | Bitmap>(bitmap: B, path?: string): B {
    if (!bitmap.inUse) return bitmap
    const qemu = `Bitmap '${bitmap.name}' is inconsistent and cannot be used\n${HINT}`
    const why = `bitmap ${quoted(bitmap.name)} is inconsistent: it can only be removed`
    throw this.#failed(qemu, why, path)
  }

  #failed(qemu: string, why: string, path = this.#image.file.path): BackupError {
    return new BackupError('BAD_BITMAP', path, why, { qemu })
  }
}

function isNamed(name: string): (bitmap: Pick<Bitmap, 'name'>) => boolean {
  return (bitmap) => bitmap.name === name
}
