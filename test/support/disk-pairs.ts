/** Pairs of disks that have much in common, in chains and formats put together at random. */
import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fullBackup } from '../../lib/backup/full.ts'
import { makeRaw, noise, prose } from './disks.ts'
import { qemuImg, run } from './qemu.ts'
import type { Random } from './random-image.ts'

const MIB = 2 ** 20

/** An image and how it was made. */
export interface MadeDisk {
  name: string
  format: 'raw' | 'qcow2'
}

/** Makes disks in a directory, by commands that `log` keeps. */
export class DiskPairs {
  readonly log: string[] = []
  readonly #dir: string
  readonly #random: Random
  #files = 0

  constructor(dir: string, random: Random) {
    this.#dir = dir
    this.#random = random
  }

  /** A chain of up to three images, of any formats that can be below each other. */
  chain(): MadeDisk {
    let disk = this.#base()
    for (let i = this.#random(3); i > 0; i--) disk = this.#overlay(disk)
    return disk
  }

  /** A disk that differs from another one in some places, if at all. */
  async relative(of: MadeDisk): Promise<MadeDisk> {
    const kind = this.#random(4)
    if (kind === 0) return this.#overlay(of)
    if (kind === 1) return await this.#backup(of)
    const copy = this.#convert(of, kind === 2 ? 'raw' : 'qcow2')
    if (copy.format === 'raw') return this.#resizeRaw(copy)
    this.#write(copy)
    return copy
  }

  /** The guest content of a disk. */
  content({ name, format }: MadeDisk): Buffer {
    const raw = `${this.#path(name)}.content`
    qemuImg('convert', '-f', format, '-O', 'raw', this.#path(name), raw)
    return readFileSync(raw)
  }

  #path(name: string): string {
    return join(this.#dir, name)
  }

  #name(): string {
    return `disk${this.#files++}`
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#random(values.length)]
  }

  #img(...args: string[]): void {
    this.log.push(`qemu-img ${args.join(' ')}`)
    qemuImg(...args)
  }

  #base(): MadeDisk {
    const raw = this.#name()
    const size = 2 * MIB + this.#random(8) * 65536 + this.#random(8) * 512
    const parts = Array.from({ length: 4 }, (_, i) => ({
      at: this.#random(size / 512) * 512,
      bytes: (i % 2 === 0 ? noise : prose)(1 + this.#random(MIB), this.#random(1000)),
    }))
    makeRaw(this.#path(raw), size, parts)
    this.log.push(`raw file of ${size} bytes: ${raw}`)
    const disk: MadeDisk = { name: raw, format: 'raw' }
    return this.#random(3) === 0 ? disk : this.#convert(disk, 'qcow2')
  }

  #convert({ name, format }: MadeDisk, to: 'raw' | 'qcow2'): MadeDisk {
    const copy = this.#name()
    const options = to === 'raw' ? [] : this.#options()
    const paths = [this.#path(name), this.#path(copy)]
    this.#img('convert', '-f', format, '-O', to, ...options, ...paths)
    return { name: copy, format: to }
  }

  #options(): string[] {
    const cluster = 512 * 2 ** this.#random(13)
    const options = [`cluster_size=${cluster}`]
    if (this.#random(2) === 0) options.push('compression_type=zstd')
    if (cluster >= 16384 && this.#random(3) === 0) options.push('extended_l2=on')
    const compressed = this.#random(2) === 0
    if (!compressed && this.#random(4) === 0) {
      options.push(`data_file=${this.#path(this.#name())}`)
      if (this.#random(2) === 0) options.push('data_file_raw=on')
    }
    return [...(compressed ? ['-c'] : []), '-o', options.join(',')]
  }

  /** Larger or smaller than its backing file, or of the same size. */
  #overlay(below: MadeDisk): MadeDisk {
    const name = this.#name()
    const path = this.#path(name)
    const [, options] = this.#options().slice(-2)
    const own = options.replace(/,data_file.*/, '')
    const size = this.#random(3) === 0 ? [String(2 * MIB + this.#random(4000) * 512)] : []
    const over = ['-b', below.name, '-F', below.format]
    this.#img('create', '-q', '-f', 'qcow2', '-o', own, ...over, path, ...size)
    const disk: MadeDisk = { name, format: 'qcow2' }
    this.#write(disk, /cluster_size=(\d+)/.exec(own)?.[1])
    return disk
  }

  /** @param cluster size of its clusters, if they are to be compressed too; bytes */
  #write({ name, format }: MadeDisk, cluster?: string): void {
    const commands = Array.from({ length: this.#random(6) }, () => {
      const start = this.#random(4096) * 512
      const length = 512 * (1 + this.#random(this.#random(2) === 0 ? 3 : 1500))
      const how = ['write -P 7', 'write -z', 'discard', 'write -P 0'][this.#random(4)]
      return `${how} ${start} ${Math.min(length, 2 * MIB - start)}`
    })
    if (cluster !== undefined) {
      const at = this.#random(Math.floor((2 * MIB) / Number(cluster))) * Number(cluster)
      commands.push(`write -c -P 3 ${at} ${cluster}`)
    }
    if (commands.length === 0) return
    this.log.push(`qemu-io ${commands.join('; ')} ${name}`)
    const args = commands.flatMap((command) => ['-c', command])
    run('qemu-io', [...args, '-f', format, this.#path(name)])
  }

  /** The image that our own writer makes of it. */
  async #backup({ name, format }: MadeDisk): Promise<MadeDisk> {
    const target = this.#name()
    const compress = this.#pick([undefined, 'zlib', 'zstd'] as const)
    const clusterSize = 512 * 2 ** this.#random(13)
    this.log.push(`full backup ${target} of ${name}: ${compress}, clusters of ${clusterSize}`)
    await fullBackup(this.#path(name), this.#path(target), { compress, clusterSize, format })
    const disk: MadeDisk = { name: target, format: 'qcow2' }
    this.#write(disk)
    return disk
  }

  /** To any length, not only whole sectors. */
  #resizeRaw(disk: MadeDisk): MadeDisk {
    const fd = openSync(this.#path(disk.name), 'r+')
    if (this.#random(2) === 0) ftruncateSync(fd, 2 * MIB + this.#random(MIB))
    closeSync(fd)
    if (this.#random(2) === 0) this.#write(disk)
    return disk
  }
}
