/**
 * Finds out whether two files or devices lie on the same storage, whatever their names are: a loop
 * device over a file, a partition and its disk, a device-mapper or md device and its disks. Writing to
 * one of them then changes the other's content.
 */
import { BackupError, ioError } from '../errors.ts'
import { type FileHandle, readFile } from '../files.ts'
import { BlockDevices, numberOf, type Stats } from './block-devices.ts'
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
  const devices = new BlockDevices(sys)
  const parts = await partsOf(written, devices, false)
  for (const file of read) {
    if (file.identity === written.identity) return file
    const others = await partsOf(file, devices, true)
    if (others.some((other) => parts.some((part) => overlap(part, other)))) return file
  }
  return undefined
}

/**
 * The first of some files and devices of which anything is in a file system that is mounted for writing:
 * a device itself, a partition of it, or a loop device over a file.
 * @param sys where sysfs is mounted
 * @throws errors of the system calls
 */
export async function findMounted<File extends StorageFile>(
  files: readonly File[],
  sys = '/sys',
): Promise<File | undefined> {
  const devices = new BlockDevices(sys)
  const mounted = await partsMounted(devices)
  for (const file of files) {
    const parts = await partsOf(file, devices, false)
    if (mounted.some((one) => parts.some((part) => overlap(part, one)))) return file
  }
  return undefined
}

/** All that file systems which are mounted for writing lie on. */
async function partsMounted(devices: BlockDevices): Promise<StoragePart[]> {
  const mounts = (await readFile('/proc/self/mountinfo')).toString()
  const mounted = new Set<string>()
  for (const line of mounts.split('\n')) {
    const [, device, rest] = /^\d+ \d+ (\d+:\d+) .* - (.*)$/.exec(line) ?? []
    const options = rest?.split(' ').at(-1)?.split(',') ?? []
    if (device && !options.includes('ro')) mounted.add(device)
  }
  const all: StoragePart[] = []
  for (const device of mounted) {
    const survey = new Survey(devices, false)
    await survey.addDevice(device, WHOLE, 0)
    all.push(...survey.parts)
  }
  return all
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
async function partsOf(file: StorageFile, devices: BlockDevices, fileSystem: boolean) {
  if (!file.handle) return [{ ...WHOLE, identity: file.identity }]
  const survey = new Survey(devices, fileSystem)
  await survey.add(await file.handle.stat({ bigint: true }), WHOLE, 0)
  return survey.parts
}

class Survey {
  readonly parts: StoragePart[] = []
  readonly #devices: BlockDevices
  readonly #fileSystem: boolean

  constructor(devices: BlockDevices, fileSystem: boolean) {
    this.#devices = devices
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
    const { names, partition, loop, slaves } = await this.#devices.get(device)
    for (const name of names) this.#take({ ...range, identity: name })
    if (partition) {
      const { disk, start, size } = partition
      await this.addDevice(disk, within(range, start, size), depth + 1)
    }
    if (loop) await this.add(loop.stats, within(range, loop.start, loop.size), depth + 1)
    for (const { device: below, allocator } of slaves) {
      // Anywhere on them.
      const allocators = allocator ? [...range.allocators, allocator] : range.allocators
      await this.addDevice(below, { ...WHOLE, allocators }, depth + 1)
    }
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
}

/** A range of a partition, as a range of its disk. */
function within(range: StorageRange, start: number, size: number): StorageRange {
  return {
    start: start + range.start,
    end: Math.min(start + range.end, start + size),
    allocators: range.allocators,
  }
}

function identityOfDevice(device: string): string {
  const [major, minor] = device.split(':').map(BigInt)
  const low = (minor & 0xffn) | ((major & 0xfffn) << 8n)
  return `rdev:${low | ((minor & ~0xffn) << 12n) | ((major & ~0xfffn) << 32n)}`
}
