/** Images of every kind that qemu-img and qemu-io make, and we, put together at random. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fullBackup } from '../../lib/backup/full.ts'
import { noise } from './disks.ts'
import { peek, poke } from './patch.ts'
import { qemuImg, run } from './qemu.ts'

/** A whole number from 0 to below the one given. */
export type Random = (below: number) => number

/** An image that was made, and how. */
export interface RandomImage {
  path: string
  format: 'raw' | 'qcow2'
  /** The commands that made it; a failing test prints it. */
  description: string
}

const MIB = 2 ** 20
const NAMES = ['disk.img', 'größe ½.img', 'two words.img', "it's 日本.img", '😀.img', 'x,y=z.img']
const PATTERNS = ['auto', 'b 1', 'è', 'ünï', '日本語', 'a'.repeat(100)]

/**
 * Makes a random image in a directory, with all that it builds on beside it.
 * @param random decides; see `randomNumbers`
 */
export async function randomImage(directory: string, random: Random): Promise<RandomImage> {
  const made = new Making(directory, random)
  const path = await made.image(random(4))
  return { path, format: made.format, description: made.log.join('\n') }
}

/** Options of a random qcow2 image. */
interface Choice {
  v3: boolean
  clusterSize: number
  refcountBits: number
  dataFile: boolean
  extendedL2: boolean
}

class Making {
  readonly log: string[] = []
  format: 'raw' | 'qcow2' = 'qcow2'
  readonly #directory: string
  readonly #random: Random
  #files = 0

  constructor(directory: string, random: Random) {
    this.#directory = directory
    this.#random = random
  }

  /** @param depth maximum images below it */
  async image(depth: number): Promise<string> {
    if (this.#one(8)) return this.#raw()
    const backing = depth > 1 && this.#one(2) ? await this.image(depth - 1) : undefined
    const backingFormat = this.format
    this.format = 'qcow2'
    const path = this.#qcow2(backing, backingFormat)
    return this.#one(6) ? await this.#ours(path) : path
  }

  #one(of: number): boolean {
    return this.#random(of) === 0
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random(list.length)]
  }

  #newName(): string {
    this.#files++
    return `${this.#files} ${this.#pick(NAMES)}`
  }

  #path(name: string): string {
    return join(this.#directory, name)
  }

  #img(...args: string[]): void {
    this.log.push(`qemu-img ${args.join(' ')}`)
    qemuImg(...args)
  }

  #raw(): string {
    this.format = 'raw'
    const path = this.#path(this.#newName())
    const size = this.#pick([0, 1, 511, 512, 1000, 65536, 200_001, MIB])
    this.log.push(`raw file of ${size} bytes: ${path}`)
    writeFileSync(path, this.#one(3) ? Buffer.alloc(size) : noise(size, 1 + this.#random(99)))
    return path
  }

  #choose(backing: string | undefined): Choice {
    const v3 = !this.#one(5)
    const clusterSize = 512 * 2 ** this.#random(13)
    const dataFile = v3 && !backing && this.#one(8)
    return {
      v3,
      clusterSize,
      refcountBits: v3 ? 2 ** this.#random(7) : 16,
      dataFile,
      extendedL2: v3 && clusterSize >= 16384 && this.#one(3),
    }
  }

  #qcow2(backing: string | undefined, backingFormat: string): string {
    const choice = this.#choose(backing)
    const name = this.#newName()
    const path = this.#path(name)
    const size = this.#size(choice)
    const options = this.#options(choice, name, backing)
    const over = backing
      ? ['-b', backing.slice(this.#directory.length + 1), '-F', backingFormat]
      : []
    this.#img('create', '-q', '-f', 'qcow2', '-o', options, ...over, path, String(size))
    this.#write(path, size, choice)
    this.#snapshots(path, size, choice)
    if (choice.v3) this.#bitmaps(path, size, choice)
    return path
  }

  /** Small enough for small clusters to be written in no time. */
  #size({ clusterSize }: Choice): number {
    const small = [0, 512, 1000, 65536, 100_000, MIB, 3 * MIB + 1536]
    return this.#pick(clusterSize < 4096 ? small : [...small, 64 * MIB, 2 ** 30, 5 * 2 ** 30 + 512])
  }

  #options(choice: Choice, name: string, backing: string | undefined): string {
    const { v3, clusterSize, refcountBits, dataFile, extendedL2 } = choice
    const options = [`compat=${v3 ? '1.1' : '0.10'}`, `cluster_size=${clusterSize}`]
    if (v3) options.push(`refcount_bits=${refcountBits}`)
    if (v3 && this.#one(4)) options.push('lazy_refcounts=on')
    if (v3 && this.#one(3)) options.push('compression_type=zstd')
    if (extendedL2) options.push('extended_l2=on')
    if (dataFile) {
      options.push(`data_file=${this.#path(`${name}.data`).replaceAll(',', ',,')}`)
      if (this.#one(2)) options.push('data_file_raw=on')
    } else if (!backing && clusterSize >= 65536 && this.#one(6)) {
      options.push('preallocation=metadata')
    }
    return options.join(',')
  }

  /** Writes, zeroes and discards here and there. */
  #write(path: string, size: number, choice: Choice): void {
    const sectors = Math.floor(size / 512)
    if (sectors === 0) return
    const kinds = ['write', 'write', 'write', 'write -z', 'write -z -u', 'discard']
    // Not with 1 bit: compressed clusters may share one of the host's.
    const compressed = !choice.dataFile && choice.refcountBits > 4 && this.#one(3)
    const commands = Array.from({ length: this.#random(7) }, () => {
      const start = this.#random(sectors)
      const most = Math.min(sectors - start, this.#one(3) ? 4000 : 100)
      const kind = this.#pick(kinds)
      const pattern = kind === 'write' ? ` -P ${this.#random(4)}` : ''
      return `${kind}${pattern} ${start * 512} ${(1 + this.#random(most)) * 512}`
    })
    if (compressed) commands.unshift(...this.#compressed(size, choice))
    if (commands.length === 0) return
    this.log.push(`qemu-io ${commands.map((command) => `-c '${command}'`).join(' ')} ${path}`)
    // That not all can be written (a refcount is too narrow) is as good an image as others.
    run('qemu-io', commands.flatMap((command) => ['-c', command]).concat('-f', 'qcow2', path))
  }

  /** Only whole clusters can be compressed. */
  #compressed(size: number, { clusterSize }: Choice): string[] {
    const clusters = Math.min(Math.floor(size / clusterSize), 64)
    return Array.from({ length: Math.min(clusters, 4) }, (_, i) => {
      return `write -c -P ${i + 1} ${i * Math.floor(clusters / 4) * clusterSize} ${clusterSize}`
    })
  }

  #snapshots(path: string, size: number, choice: Choice): void {
    // A snapshot shares clusters, which a refcount of one bit cannot count.
    if (choice.dataFile || choice.refcountBits < 4 || !this.#one(3)) return
    for (let i = this.#random(3); i >= 0; i--) {
      this.#img('snapshot', '-c', this.#pick(PATTERNS), path)
      this.#write(path, size, { ...choice, dataFile: true })
    }
  }

  #bitmaps(path: string, size: number, choice: Choice): void {
    if (size === 0 || !this.#one(2)) return
    const names = PATTERNS.slice(this.#random(PATTERNS.length))
    for (const name of names) {
      const granularity = String(512 * 2 ** this.#random(12))
      this.#img('bitmap', '--add', '-g', granularity, path, name)
      if (this.#one(2)) this.#img('bitmap', '--disable', path, name)
    }
    this.#write(path, size, { ...choice, dataFile: true })
    if (this.#one(3)) this.#leaveInUse(path)
  }

  /** Marks the first bitmap as a program leaves it that was killed. */
  #leaveInUse(path: string): void {
    const head = peek(path, 0, 2048)
    const at = head.subarray(0, 1024).indexOf(Buffer.from('2385287500000018', 'hex'))
    if (at < 0) return
    this.log.push('the first bitmap is in use')
    const flagsAt = Number(head.readBigUInt64BE(at + 24)) + 12
    poke(path, flagsAt, peek(path, flagsAt, 4).readUInt32BE() | 1)
  }

  /** The image that our own writer makes of it. */
  async #ours(path: string): Promise<string> {
    const target = this.#path(this.#newName())
    const compress = this.#pick([undefined, 'zlib', 'zstd'] as const)
    const clusterSize = 512 * 2 ** (4 + this.#random(9))
    this.log.push(
      `full backup of ${path}, ${compress ?? 'not compressed'}, clusters ${clusterSize}`,
    )
    await fullBackup(path, target, { compress, clusterSize, format: 'qcow2' })
    return target
  }
}
