import { join } from 'node:path'
import type { Test } from 'tap'
import {
  type CopyResult,
  fullBackup,
  type IncrementalOptions,
  incrementalBackup,
  restore,
} from '../../lib/index.ts'
import { firstDifference } from './disks.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuImgMap, qemuImgSame, qemuIo } from './qemu.ts'

/** A disk that is backed up repeatedly, with a copy of its content each time. */
export class History {
  readonly #t: Test
  readonly #directory: string
  readonly disk: string
  readonly #options: Partial<IncrementalOptions>
  readonly #granularity: number
  #points = 0

  constructor(
    t: Test,
    size: number,
    granularity: number,
    options: Partial<IncrementalOptions> = {},
  ) {
    this.#t = t
    this.#directory = t.testdir()
    this.disk = join(this.#directory, 'disk.qcow2')
    this.#options = options
    this.#granularity = granularity
    qemuImg('create', '-q', '-f', 'qcow2', this.disk, String(size))
  }

  backup(point: number): string {
    return join(this.#directory, `backup-${point}.qcow2`)
  }

  #copy(point: number): string {
    return join(this.#directory, `copy-${point}.raw`)
  }

  change(...commands: string[]): void {
    qemuIo(this.disk, ...commands)
  }

  resize(size: number): void {
    const shrink = size < qemuImgInfo(this.disk)['virtual-size'] ? ['--shrink'] : []
    qemuImg('resize', '-q', ...shrink, this.disk, String(size))
  }

  /** Backs up the disk as it is, the first time all of it, and begins the next bitmap. */
  async point(options: Partial<IncrementalOptions> = {}): Promise<CopyResult> {
    const point = this.#points++
    const target = this.backup(point)
    const result =
      point === 0
        ? await fullBackup(this.disk, target, this.#options)
        : await incrementalBackup(this.disk, target, {
            ...this.#options,
            ...options,
            bitmap: `since-${point - 1}`,
            backing: this.backup(point - 1),
          })
    qemuImg('bitmap', '--add', '-g', String(this.#granularity), this.disk, `since-${point}`)
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', this.disk, this.#copy(point))
    this.#check(result, target, point)
    return result
  }

  #check(result: CopyResult, target: string, point: number): void {
    const t = this.#t
    const { virtualSize, dataBytes, zeroBytes, unchangedBytes } = result
    t.equal(dataBytes + zeroBytes + unchangedBytes, virtualSize, 'the bytes add up')
    const { status, report, stderr } = qemuImgCheck(target)
    t.equal(status, 0, `check of ${point} is clean ${stderr}`)
    // QEMU counts every compressed cluster as one.
    const fragments = (report['fragmented-clusters'] ?? 0) - (report['compressed-clusters'] ?? 0)
    t.equal(fragments, 0, 'no fragmentation')
    const same = qemuImgSame(
      { path: target, format: 'qcow2' },
      { path: this.disk, format: 'qcow2' },
    )
    t.ok(same, `compare of ${point} is identical`)
    if (point === 0) return
    const info = qemuImgInfo(target)
    t.equal(info['backing-filename'], `backup-${point - 1}.qcow2`)
    t.equal(info['backing-filename-format'], 'qcow2')
    const own = qemuImgMap(target).filter(({ depth, present }) => depth === 0 && present)
    const stored = own.reduce((sum, { length }) => sum + length, 0)
    t.equal(dataBytes + zeroBytes, stored, 'as many bytes are in it as it says')
  }

  /** Restores every point, and compares it byte for byte with the disk of that time. */
  async restoreAll(): Promise<void> {
    const restored = join(this.#directory, 'restored.raw')
    for (let point = 0; point < this.#points; point++) {
      await restore(this.backup(point), restored, { force: true })
      this.#t.equal(firstDifference(restored, this.#copy(point)), undefined, `point ${point}`)
    }
  }
}
