/**
 * Finds out whether two files or devices lie on the same storage, whatever their names are: a loop
 * device over a file, a partition and its disk, a device-mapper or md device and its disks. Writing to
 * one of them then changes the other's content.
 */
import { join } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { constants, type FileHandle, open, readdir, readFile, stat } from '../files.ts'
import { native } from '../native.ts'
import { decodeText } from '../text.ts'
import { identityOf } from './file.ts'

/** The file in question, open. */
export interface StorageFile {
  /** See SourceFile.identity. */
  readonly identity: string
  /** Missing if the store is not a file, such as an export of an NBD server. */
  readonly handle?: FileHandle
}

/** A range of a file or device that something lies on. */
interface StoragePart {
  identity: string
  /** Bytes. */
  start: number
  end: number
  /**
   * Those in between that hand out places on it: file systems and volume groups. Two parts that came
   * from one of them do not overlap.
   */
  allocators: readonly string[]
}

type StorageRange = Pick<StoragePart, 'start' | 'end' | 'allocators'>

const SECTOR = 512
/** Real stacks are not deeper; the limit ends loops. */
const MAX_DEPTH = 32
const WHOLE: StorageRange = { start: 0, end: Number.POSITIVE_INFINITY, allocators: [] }

/**
 * Makes sure that writing to a file or device changes nothing that is read meanwhile.
 * @throws BackupError BAD_TARGET if it lies on the same storage as one of the files that are read; IO
 */
export async function requireApart(
  written: StorageFile & { path: string },
  read: readonly (StorageFile & { path: string })[],
): Promise<void> {
  const { path } = written
  const file = await findShared(written, read).catch((error) => {
    throw ioError(path, error)
  })
  if (!file) return
  const why = `is on the same storage as ${file.path}, which is read`
  throw new BackupError('BAD_TARGET', path, why)
}

/**
 * The first of some files that lies on the same storage as one that is to be written.
 * @param sys where sysfs is mounted; for tests
 * @throws errors of the system calls
 */
export async function findShared<Read extends StorageFile>(
  written: StorageFile,
  read: readonly Read[],
  sys = '/sys',
): Promise<Read | undefined> {
  const parts = await partsOf(written, sys, false)
  for (const file of read) {
    if (file.identity === written.identity) return file
    const others = await partsOf(file, sys, true)
    if (others.some((other) => parts.some((part) => overlap(part, other)))) return file
  }
  return undefined
}

/**
 * Whether anything of a file or device is in a file system that is mounted for writing: the device
 * itself, a partition of it, or a loop device over the file.
 * @throws errors of the system calls
 */
export async function isMounted(file: StorageFile, sys = '/sys'): Promise<boolean> {
  const parts = await partsOf(file, sys, false)
  const mounts = (await readFile('/proc/self/mountinfo')).toString()
  const devices = new Set<string>()
  for (const line of mounts.split('\n')) {
    const [, device, rest] = /^\d+ \d+ (\d+:\d+) .* - (.*)$/.exec(line) ?? []
    const options = rest?.split(' ').at(-1)?.split(',') ?? []
    if (device && !options.includes('ro')) devices.add(device)
  }
  for (const device of devices) {
    const found = new Survey(sys, false)
    await found.addDevice(device, WHOLE, 0)
    if (found.parts.some((one) => parts.some((part) => overlap(part, one)))) return true
  }
  return false
}

function overlap(a: StoragePart, b: StoragePart): boolean {
  return (
    a.identity === b.identity &&
    a.start < b.end &&
    b.start < a.end &&
    !a.allocators.some((one) => b.allocators.includes(one))
  )
}

/**
 * All that a file lies on, from the file itself down.
 * @param fileSystem also the device of its file system: for files read, which are gone with their file
 * system. Writing to a file changes nothing else on that.
 */
async function partsOf(file: StorageFile, sys: string, fileSystem: boolean) {
  if (!file.handle) return [{ ...WHOLE, identity: file.identity }]
  const survey = new Survey(sys, fileSystem)
  await survey.add(await file.handle.stat({ bigint: true }), WHOLE, 0)
  return survey.parts
}

/** The result of stat on a file or device. */
interface Stats {
  dev: bigint
  ino: bigint
  rdev: bigint
  isBlockDevice(): boolean
}

class Survey {
  readonly parts: StoragePart[] = []
  readonly #sys: string
  readonly #fileSystem: boolean

  constructor(sys: string, fileSystem: boolean) {
    this.#sys = sys
    this.#fileSystem = fileSystem
  }

  async add(stats: Stats, range: StorageRange, depth: number): Promise<void> {
    if (stats.isBlockDevice()) return await this.addDevice(numberOf(stats.rdev), range, depth)
    if (!this.#take({ ...range, identity: identityOf(stats) })) return
    if (!this.#fileSystem) return
    const device = numberOf(stats.dev)
    const allocators = [...range.allocators, `file system on ${device}`]
    await this.addDevice(device, { ...WHOLE, allocators }, depth + 1)
  }

  /** @param device major:minor */
  async addDevice(device: string, range: StorageRange, depth: number): Promise<void> {
    if (depth > MAX_DEPTH || !this.#take({ ...range, identity: identityOfDevice(device) })) return
    const directory = join(this.#sys, 'dev/block', device)
    await this.#addWorldWideName(directory, range)
    await this.#addDisk(directory, range, depth + 1)
    await this.#addLoopFile(directory, device, range, depth + 1)
    await this.#addSlaves(directory, range, depth + 1)
  }

  /** @returns false if it was there already */
  #take(part: StoragePart): boolean {
    const same = this.parts.some(
      (one) =>
        one.identity === part.identity &&
        one.start === part.start &&
        one.end === part.end &&
        one.allocators.join() === part.allocators.join(),
    )
    if (!same) this.parts.push(part)
    return !same
  }

  /** One disk by two paths has two devices, with one name that is unique in the world. */
  async #addWorldWideName(directory: string, range: StorageRange): Promise<void> {
    for (const file of ['wwid', 'device/wwid']) {
      const name = await content(join(directory, file))
      if (name && /^(naa|eui|uuid)\./.test(name)) this.#take({ ...range, identity: name })
    }
  }

  /** The disk of a partition. */
  async #addDisk(directory: string, range: StorageRange, depth: number): Promise<void> {
    if ((await content(join(directory, 'partition'))) === undefined) return
    // Not join(), which would take the link before `..` for a directory.
    const disk = await content(`${directory}/../dev`)
    const start = Number(await content(join(directory, 'start'))) * SECTOR
    const size = Number(await content(join(directory, 'size'))) * SECTOR
    if (disk) await this.addDevice(disk, within(range, start, size), depth)
  }

  async #addLoopFile(
    directory: string,
    device: string,
    range: StorageRange,
    depth: number,
  ): Promise<void> {
    const path = await content(join(directory, 'loop/backing_file'))
    if (path === undefined) return
    const exact = await loopStatus(directory, device)
    if (exact) {
      const { dev, ino, rdev, offset, sizeLimit } = exact
      const size = sizeLimit === 0n ? Number.POSITIVE_INFINITY : Number(sizeLimit)
      const stats = { dev, ino, rdev, isBlockDevice: () => rdev !== 0n }
      return await this.add(stats, within(range, Number(offset), size), depth)
    }
    const stats = await stat(path).catch(() => undefined)
    if (!stats) return
    const start = Number((await content(join(directory, 'loop/offset'))) ?? 0)
    const limit = Number((await content(join(directory, 'loop/sizelimit'))) ?? 0)
    const size = limit === 0 ? Number.POSITIVE_INFINITY : limit
    await this.add(stats, within(range, start, size), depth)
  }

  /** The devices below device-mapper, md, bcache and the like: anywhere on them. */
  async #addSlaves(directory: string, { allocators }: StorageRange, depth: number): Promise<void> {
    const slaves = await readdir(join(directory, 'slaves')).catch(() => [])
    if (slaves.length === 0) return
    const kind = /^(LVM|part\d+)-/.exec((await content(join(directory, 'dm/uuid'))) ?? '')?.[1]
    for (const slave of slaves) {
      const device = await content(join(directory, 'slaves', slave, 'dev'))
      if (!device) continue
      // Logical volumes do not overlap, and neither do partitions that kpartx made.
      const own = kind && `${kind === 'LVM' ? 'LVM' : 'kpartx'} on ${device}`
      const below = { ...WHOLE, allocators: own ? [...allocators, own] : allocators }
      await this.addDevice(device, below, depth)
    }
  }
}

/** A range of a partition, as a range of its disk. */
function within(range: StorageRange, start: number, size: number): StorageRange {
  return {
    start: start + range.start,
    end: Math.min(start + range.end, start + size),
    allocators: range.allocators,
  }
}

/** By the device itself, since the path in sysfs may lead elsewhere by now. */
async function loopStatus(directory: string, device: string) {
  const name = /^DEVNAME=(.*)$/m.exec((await content(join(directory, 'uevent'))) ?? '')?.[1]
  if (!name) return undefined
  const flags = constants.O_RDONLY | constants.O_NONBLOCK
  const handle = await open(`/dev/${name}`, flags).catch(() => undefined)
  if (!handle) return undefined
  try {
    const stats = await handle.stat({ bigint: true })
    if (!stats.isBlockDevice() || numberOf(stats.rdev) !== device) return undefined
    return native().loopBacking(handle.fd)
  } finally {
    await handle.close()
  }
}

/** Content of a sysfs file; undefined if there is none. */
async function content(path: string): Promise<string | undefined> {
  return await readFile(path).then(
    (bytes) => decodeText(bytes).replace(/\n$/, ''),
    () => undefined,
  )
}

/** major:minor of a device number as stat(2) has it. */
function numberOf(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  return `${major}:${minor & 0xffffffffn}`
}

function identityOfDevice(device: string): string {
  const [major, minor] = device.split(':').map(BigInt)
  const low = (minor & 0xffn) | ((major & 0xfffn) << 8n)
  return `rdev:${low | ((minor & ~0xffn) << 12n) | ((major & ~0xfffn) << 32n)}`
}
