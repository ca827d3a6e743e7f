import { unsupported } from '../errors.ts'
import { FIELD, MAX_L1_BYTES } from '../format/qcow2/constants.ts'
import { COPIED, hostOffset, isCopied } from '../format/qcow2/entries.ts'
import { l2Coverage } from '../format/qcow2/validate.ts'
import { readAt } from '../format/read.ts'
import type { ImageDisk, Write } from '../image/steps.ts'
import { Allocator } from './allocator.ts'
import { runEdit, writeUnreferenced } from './edit.ts'
import { type EditedImage, reopened } from './edited-image.ts'
import { type Lost, lose } from './release.ts'

/** The active L1 table of an image that is edited. */
export class L1Table {
  readonly #offset: number
  readonly #bytes: Buffer
  readonly #view: DataView
  readonly #changed = new Set<number>()
  /** L1 entries that name a table which others may name, by the offset of the table. */
  readonly #shared = new Map<number, Set<number>>()

  private constructor(offset: number, bytes: Buffer) {
    this.#offset = offset
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let index = 0; index < bytes.length / 8; index++) {
      const table = this.offset(index)
      if (table === 0 || this.copied(index)) continue
      const users = this.#shared.get(table)
      if (users) users.add(index)
      else this.#shared.set(table, new Set([index]))
    }
  }

  static async read({ file, header }: EditedImage): Promise<L1Table> {
    const { l1TableOffset, l1Size } = header
    return new L1Table(l1TableOffset, await readAt(file, l1TableOffset, l1Size * 8))
  }

  /** Of the table that an entry names, bytes; 0: none. */
  offset(index: number): number {
    return hostOffset(this.#view, index * 8)
  }

  /** Whether nothing else names the same table. */
  copied(index: number): boolean {
    return isCopied(this.#view, index * 8)
  }

  /** Entries that name an L2 table which another entry names too, table by table. */
  shared(): number[][] {
    return [...this.#shared.values()].filter((users) => users.size > 1).map((users) => [...users])
  }

  set(index: number, offset: number, copied: boolean): void {
    this.#bytes.writeBigUInt64BE(BigInt(offset) | (copied ? COPIED : 0n), index * 8)
    this.#changed.add(index)
  }

  /**
   * An entry does not use its table any more.
   * @returns the only other entry that does, if there is just one
   */
  leave(index: number): number | undefined {
    const users = this.#shared.get(this.offset(index))
    users?.delete(index)
    return users?.size === 1 ? [...users][0] : undefined
  }

  /** Entries set since the last call. */
  changes(): Write[] {
    const writes: Write[] = []
    let end = -1
    let start = -1
    const add = () => {
      if (end < 0) return
      const bytes = Buffer.from(this.#bytes.subarray(start * 8, end * 8))
      writes.push({ offset: this.#offset + start * 8, bytes })
    }
    for (const index of [...this.#changed].sort((a, b) => a - b)) {
      if (index !== end) {
        add()
        start = index
      }
      end = index + 1
    }
    add()
    this.#changed.clear()
    return writes
  }
}

/**
 * Gives an image an L1 table that is large enough for a disk of `size` bytes; its size stays.
 * @returns the image as it is then
 * @throws BackupError UNSUPPORTED if QEMU would not open it; IO
 */
export async function withRoomFor(
  image: EditedImage,
  size: number,
  disk: ImageDisk,
): Promise<EditedImage> {
  const { file, header, stored } = image
  const { clusterSize, l1TableOffset, l1Size } = header
  const entries = Math.ceil(size / l2Coverage(header))
  if (entries <= l1Size) return image
  if (entries * 8 > MAX_L1_BYTES) {
    throw unsupported(
      file.path,
      `cannot hold a disk of ${size} bytes with clusters of ${clusterSize}`,
    )
  }
  const allocator = new Allocator(file, header, stored)
  const clusters = Math.ceil((entries * 8) / clusterSize)
  const offset = await allocator.allocate(clusters)
  const bytes = Buffer.alloc(clusters * clusterSize)
  ;(await readAt(file, l1TableOffset, l1Size * 8)).copy(bytes)
  const field = Buffer.alloc(12)
  field.writeUInt32BE(entries, 0)
  field.writeBigUInt64BE(BigInt(offset), 4)
  const lost: Lost = new Map()
  if (l1Size > 0) lose(lost, l1TableOffset, l1Size * 8, clusterSize)
  await runEdit(image, disk, {
    allocator,
    lost,
    prepare: (fresh) => writeUnreferenced(image, disk, [...fresh, { offset, bytes }]),
    naming: () => [[{ offset: FIELD.l1Size, bytes: field }]],
  })
  return await reopened(image)
}
