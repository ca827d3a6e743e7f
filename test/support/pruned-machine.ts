/** A repository with a machine whose disks are in memory: a long history needs no other program. */
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import {
  type CopyResult,
  type CustomExtent,
  type CustomSource,
  fullBackup,
  type ImageOptions,
  incrementalBackup,
  type MachinePrune,
  type PointRecord,
  type PruneOptions,
  pruneRepository,
  restoreMachine,
} from '../../lib/index.ts'
import type { DiskRecord } from '../../lib/repository/record.ts'
import { Repository } from '../../lib/repository/repository.ts'
import { noise, prose } from './disks.ts'

const SECTOR = 512
const HOUR_MS = 3_600_000
/** Files of a machine's folder that are of no point. */
const OWN = ['.lock', '.verified.json']

export interface BackupOptions extends ImageOptions {
  full?: boolean
  /** Default: all. */
  disks?: readonly string[]
  /** Since the point before. Default: some. */
  hours?: number
}

class Disk {
  content: Buffer
  /** Sectors that were written since the last backup. */
  dirty = new Set<number>()
  /** That backup. */
  last: { point: string; id: string; image: string } | undefined

  constructor(content: Buffer) {
    this.content = content
  }

  write(at: number, bytes: Buffer): void {
    bytes.copy(this.content, at)
    for (let sector = at / SECTOR; sector < (at + bytes.length) / SECTOR; sector++) {
      this.dirty.add(sector)
    }
  }

  resize(size: number): void {
    const before = this.content.length
    this.content = Buffer.concat([this.content, Buffer.alloc(size)]).subarray(0, size)
    // What was cut off and comes back is zero now.
    for (let at = before; at < size; at += SECTOR) this.dirty.add(at / SECTOR)
  }

  source(name: string): CustomSource {
    const { content, dirty } = this
    return {
      name,
      size: content.length,
      *extents() {
        let last: CustomExtent | undefined
        for (let start = 0; start < content.length; start += SECTOR) {
          const zero = content.subarray(start, start + SECTOR).every((byte) => byte === 0)
          const now = { start, length: SECTOR, zero, dirty: dirty.has(start / SECTOR) }
          if (last && last.zero === zero && last.dirty === now.dirty) {
            last.length += SECTOR
            continue
          }
          if (last) yield last
          last = now
        }
        if (last) yield last
      },
      read: async (start, length) => content.subarray(start, start + length),
    }
  }
}

/** The machine `web`. It makes its points at times of its own, and knows what each of them is to hold. */
export class PrunedMachine {
  readonly directory: string
  readonly repository: string
  readonly #disks: ReadonlyMap<string, Disk>
  readonly #random: () => number
  /** By the names of the points. */
  readonly #contents = new Map<string, Map<string, Buffer>>()
  #points = 0
  #time = Date.UTC(2026, 0, 1)

  /** @param random numbers in [0, 1) */
  constructor(t: Test, disks: readonly string[], random: () => number) {
    this.directory = t.testdir()
    this.repository = join(this.directory, 'repo')
    this.#random = random
    const made = () => new Disk(noise(SECTOR * (1 + this.below(1200)), this.below(1e6)))
    this.#disks = new Map(disks.map((name) => [name, made()]))
  }

  get folder(): string {
    return join(this.repository, 'web')
  }

  /** A whole number. */
  below(end: number): number {
    return Math.floor(this.#random() * end)
  }

  /** The guest writes, zeroes, and sometimes a disk is resized. */
  change(): void {
    for (const disk of this.#disks.values()) {
      if (this.below(4) === 0) {
        const unit = this.below(2) === 0 ? SECTOR : 65536
        disk.resize(unit * (1 + this.below((600 * 1024) / unit)))
      }
      for (let i = this.below(6); i > 0; i--) {
        const { length: size } = disk.content
        const length = Math.min(size, SECTOR * (1 + this.below(this.below(3) === 0 ? 200 : 5)))
        const at = SECTOR * this.below((size - length) / SECTOR + 1)
        const make = [noise, prose, (bytes: number) => Buffer.alloc(bytes)][this.below(3)]
        disk.write(at, make(length, this.below(1e6)))
      }
    }
  }

  /** The guest writes one thing. */
  write(disk: string, at: number, bytes: Buffer): void {
    this.#disks.get(disk)!.write(at, bytes)
  }

  /** The disk has another size. */
  resize(disk: string, size: number): void {
    this.#disks.get(disk)!.resize(size)
  }

  /** @returns the name of the new point, some hours after the last one */
  async backup({ full, disks, hours, ...options }: BackupOptions = {}): Promise<string> {
    const point = `p${this.#points++}`
    const id = `${this.below(1e12)}`.padStart(12, '0')
    const folder = await (await Repository.make(this.repository)).lock('web')
    const records: DiskRecord[] = []
    try {
      for (const [name, disk] of this.#disks) {
        if (disks && !disks.includes(name)) continue
        const over = full ? undefined : disk.last
        records.push(await this.#copy(name, disk, point, over, options))
        disk.dirty.clear()
        disk.last = { point, id, image: `${name}.${point}.qcow2` }
      }
      this.#time += HOUR_MS * (hours ?? 1 + this.below([3, 30, 300][this.below(3)]))
      await folder.record({
        version: 1,
        machine: 'web',
        point,
        id,
        time: new Date(this.#time).toISOString(),
        disks: records,
        versions: {},
      })
    } finally {
      await folder.close()
    }
    const copies = records.map(({ name }) => {
      return [name, Buffer.from(this.#disks.get(name)!.content)] as const
    })
    this.#contents.set(point, new Map(copies))
    return point
  }

  async #copy(
    name: string,
    disk: Disk,
    point: string,
    over: Disk['last'],
    options: ImageOptions,
  ): Promise<DiskRecord> {
    const image = `${name}.${point}.qcow2`
    const path = join(this.folder, image)
    const source = disk.source(name)
    const how = { ...options, verify: true }
    const backing = over && join(this.folder, over.image)
    const result: CopyResult = backing
      ? await incrementalBackup(source, path, { ...how, backing })
      : await fullBackup(source, path, how)
    const { virtualSize, dataBytes, zeroBytes, unchangedBytes } = result
    const { fileSize, allocatedBytes, content } = result
    return {
      name,
      image,
      kind: over ? 'incremental' : 'full',
      ...(over && { parent: over.point, parentId: over.id }),
      ...{ virtualSize, dataBytes, zeroBytes, unchangedBytes, fileSize, allocatedBytes },
      modified: statSync(path).mtime.toISOString(),
      content: content!,
    }
  }

  /** Prunes the machine; its result. */
  async prune(options: PruneOptions): Promise<MachinePrune> {
    for await (const result of pruneRepository(this.repository, options)) return result
    throw new Error('the repository has no machine')
  }

  /** Names of the points, oldest first. */
  points(): string[] {
    return this.records().map(({ point }) => point)
  }

  /** As they are in the files, oldest first. */
  records(): PointRecord[] {
    const number = (name: string) => Number(/\d+/.exec(name)![0])
    const files = readdirSync(this.folder).filter((name) => /^p\d+\.json$/.test(name))
    files.sort((a, b) => number(a) - number(b))
    return files.map((name) => JSON.parse(readFileSync(join(this.folder, name), 'utf8')))
  }

  /** Restores points; what differs from the disks as they were. */
  async differences(points: readonly string[]): Promise<string[]> {
    const found: string[] = []
    for (const point of points) {
      for (const [disk, content] of this.#contents.get(point)!) {
        const target = join(this.directory, 'restored.raw')
        try {
          await restoreMachine(this.repository, 'web', target, { point, disk })
          if (!readFileSync(target).equals(content)) found.push(`${point} ${disk}`)
        } catch (error) {
          found.push(`${point} ${disk}: ${(error as Error).message}`)
        }
        rmSync(target, { force: true })
      }
    }
    return found
  }

  /** Files that are of no point, and those of points that are missing. */
  strangers(): string[] {
    const there = new Set(readdirSync(this.folder))
    const named = this.records().flatMap(({ point, disks }) => [
      `${point}.json`,
      ...disks.map(({ image }) => image),
    ])
    const missing = named.filter((name) => !there.has(name)).map((name) => `${name} is missing`)
    return [...missing, ...[...there].filter((name) => ![...named, ...OWN].includes(name))]
  }

  /** Paths of all images. */
  images(): string[] {
    return this.records().flatMap(({ disks }) => disks.map(({ image }) => join(this.folder, image)))
  }

  /** A file of the content that a disk is to have at a point, for other programs to compare. */
  model(point: string, disk: string): string {
    const path = join(this.directory, 'model.raw')
    writeFileSync(path, this.#contents.get(point)!.get(disk)!)
    return path
  }
}
