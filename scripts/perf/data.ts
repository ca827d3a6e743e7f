import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CHUNK, type Content, mixedContent, noiseContent } from './content.ts'
import {
  type DataExtent,
  type MixedDisk,
  mixedLayout,
  type ScatteredDisk,
  scatteredLayout,
} from './layout.ts'
import { type MappedDisk, makeMapped } from './mapped-image.ts'
import { makeImage } from './verify.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30
const TIB = 2 ** 40

/** Raised whenever layout or content change, so that old disks are made again. */
const RECIPE = 1

/** The disks of a full or a quick run. */
export interface Disks {
  mixed: MixedDisk
  scattered: ScatteredDisk
  /** Virtual size of the disk without any data, bytes. */
  empty: number
  /** Changes since the previous backup, for an incremental one. */
  changed: ScatteredDisk
  /** Bytes of data in the previous backup of a disk that is zeroed. */
  trimmed: number
  /** Dirty granules of the disk of which every second one is dirty. */
  alternating: number
  /** Changes of the mixed disk from one backup of a chain to the next. */
  round: ScatteredDisk
  /** Content of an overlay over the mixed disk, and a disk's differences from a known state. */
  overlay: ScatteredDisk
  differing: ScatteredDisk
  /** A disk full of data, and its changes from one backup to the next. */
  joined: ScatteredDisk
  /** Virtual size of the disk whose bitmaps are merged, and how many those are. */
  manyBitmaps: { size: number; bitmaps: number }
  /**
   * The disk of a machine that runs: of its size, data at the start, and a tenth of it changed; and the
   * rate of a copy that the guest's writes are ahead of, bytes a second.
   */
  live: { size: number; written: number; changed: ScatteredDisk; slow: number }
  /** The image that is only read. */
  mapped: MappedDisk
}

// 15 TiB, because a file on ext4 ends at 16.
const FULL: Disks = {
  mixed: { size: 8 * GIB, dataBytes: 3_000_008_704, smallExtents: 1200, largest: 256 * MIB },
  scattered: { size: 15 * TIB, blocks: 1000, blockSize: 65536 },
  empty: 15 * TIB,
  changed: { size: 32 * GIB, blocks: 20_000, blockSize: 65536 },
  trimmed: 4 * GIB,
  alternating: 1_000_000,
  round: { size: 8 * GIB, blocks: 4000, blockSize: 65536 },
  overlay: { size: 8 * GIB, blocks: 15_259, blockSize: 65536 },
  differing: { size: 8 * GIB, blocks: 458, blockSize: 65536 },
  joined: { size: 4 * GIB, blocks: 16_384, blockSize: 65536 },
  manyBitmaps: { size: 16 * TIB, bitmaps: 64 },
  live: {
    size: 4 * GIB,
    written: 3 * GIB,
    changed: { size: 4 * GIB, blocks: 6554, blockSize: 65536 },
    slow: 256 * MIB,
  },
  mapped: { size: TIB, perTable: 1024, run: 16 },
}
const QUICK: Disks = {
  mixed: { size: GIB, dataBytes: 384 * MIB, smallExtents: 150, largest: 32 * MIB },
  scattered: { size: 2 * TIB, blocks: 150, blockSize: 65536 },
  empty: 15 * TIB,
  changed: { size: 8 * GIB, blocks: 5000, blockSize: 65536 },
  trimmed: GIB,
  alternating: 1_000_000,
  round: { size: GIB, blocks: 500, blockSize: 65536 },
  overlay: { size: GIB, blocks: 2000, blockSize: 65536 },
  differing: { size: GIB, blocks: 60, blockSize: 65536 },
  joined: { size: GIB / 2, blocks: 2048, blockSize: 65536 },
  manyBitmaps: { size: 2 * TIB, bitmaps: 8 },
  live: {
    size: GIB / 2,
    written: (GIB * 3) / 8,
    changed: { size: GIB / 2, blocks: 819, blockSize: 65536 },
    slow: 64 * MIB,
  },
  mapped: { size: 128 * GIB, perTable: 1024, run: 16 },
}

/** The disks that the cases copy. Each is made once per directory, when first asked for. */
export class DataStore {
  readonly disks: Disks
  /** Where the disks lie. */
  readonly dir: string
  readonly #prefix: string
  readonly #signal: AbortSignal

  /** @param dir an existing directory, where the disks stay for the next time */
  constructor(dir: string, quick: boolean, signal: AbortSignal) {
    this.disks = quick ? QUICK : FULL
    this.dir = dir
    this.#prefix = quick ? 'quick-' : ''
    this.#signal = signal
  }

  /** Maximum bytes of the disks and one run's targets. */
  get bytesNeeded(): number {
    const { mixed, changed, round, trimmed, overlay, joined, live } = this.disks
    // Raw, qcow2, a backup to restore or to compare, a target, one that differs; a changed disk and
    // its backup; before and after it is zeroed; four rounds, on the disk and in the chain; an overlay,
    // and its base; a disk full of data with a backup, and its changes with two; a machine's disk, what it overwrites and two backups; and the tables and bitmaps of the
    // huge disks.
    return (
      5 * mixed.dataBytes +
      2 * overlay.blocks * overlay.blockSize +
      2 * changed.blocks * changed.blockSize +
      2 * trimmed +
      8 * round.blocks * round.blockSize +
      3 * joined.size +
      3 * joined.blocks * joined.blockSize +
      4 * live.size +
      2 * GIB
    )
  }

  /** @returns path of the raw mixed disk */
  mixedRaw(): Promise<string> {
    const { mixed } = this.disks
    return this.made('mixed.raw', mixed, (path) =>
      writeDisk(path, mixed.size, mixedLayout(mixed), mixedContent(), this.#signal),
    )
  }

  /** @returns path of the mixed disk as an image that qemu-img made */
  async mixedQcow2(): Promise<string> {
    const raw = await this.mixedRaw()
    return this.made('mixed.qcow2', this.disks.mixed, (path) =>
      makeImage({ path: raw, format: 'raw' }, { path, format: 'qcow2' }, this.#signal),
    )
  }

  /** @returns path of the image with many allocated clusters */
  mappedQcow2(): Promise<string> {
    const { mapped } = this.disks
    return this.made('mapped.qcow2', mapped, (path) => makeMapped(path, mapped, this.#signal))
  }

  /** @returns path of the raw disk with scattered blocks */
  scatteredRaw(): Promise<string> {
    const { scattered } = this.disks
    return this.made('scattered.raw', scattered, (path) =>
      writeDisk(path, scattered.size, scatteredLayout(scattered), noiseContent(), this.#signal),
    )
  }

  /** @returns path of the raw disk that is full of data */
  wholeRaw(): Promise<string> {
    const { size } = this.disks.joined
    return this.made('whole.raw', { size }, (path) =>
      writeDisk(path, size, [{ offset: 0, length: size }], mixedContent(), this.#signal),
    )
  }

  /** @returns path of the raw disk that is one hole */
  emptyRaw(): Promise<string> {
    const size = this.disks.empty
    return this.made('empty.raw', { size }, (path) =>
      writeDisk(path, size, [], noiseContent(), this.#signal),
    )
  }

  /**
   * Path of a file made under another name and renamed when complete. The note beside it says by which
   * recipe, and how long it came out, so that neither an old nor a damaged one is used again.
   */
  async made(name: string, disk: object, make: (path: string) => Promise<void>): Promise<string> {
    const path = join(this.dir, this.#prefix + name)
    const note = `${path}.json`
    const noteNow = async () =>
      JSON.stringify({ recipe: RECIPE, ...disk, fileSize: (await stat(path)).size })
    if ((await readFile(note, 'utf8').catch(() => '')) === (await noteNow().catch(() => null))) {
      return path
    }
    process.stderr.write(`perf: making ${path}\n`)
    const partial = `${path}.partial`
    try {
      await rm(partial, { force: true })
      await make(partial)
      await rename(partial, path)
    } catch (error) {
      await rm(partial, { force: true })
      throw error
    }
    await writeFile(note, await noteNow())
    return path
  }
}

async function writeDisk(
  path: string,
  size: number,
  extents: DataExtent[],
  content: Content,
  signal: AbortSignal,
): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.truncate(size)
    for (const { offset, length } of extents) {
      for (let done = 0; done < length; done += CHUNK) {
        signal.throwIfAborted()
        const bytes = content(offset + done, Math.min(CHUNK, length - done))
        await file.write(bytes, 0, bytes.length, offset + done)
      }
    }
    await file.sync()
  } finally {
    await file.close()
  }
}
