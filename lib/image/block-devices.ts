import { join } from 'node:path'
import { constants, open, readdir, readFile, stat } from '../files.ts'
import { native } from '../native.ts'
import { decodeText } from '../text.ts'

/** The result of stat on a file or device. */
export interface Stats {
  dev: bigint
  ino: bigint
  rdev: bigint
  isBlockDevice(): boolean
}

/** What a block device is made of, as far as sysfs tells. */
export interface BlockDevice {
  /** Names that are unique in the world: one disk by two paths has two devices, with one name. */
  names: string[]
  /** Of a partition: its disk, and where on it, bytes. */
  partition?: { disk: string; start: number; size: number }
  /** Of a loop device: its file, or device, and the range of that, bytes. */
  loop?: { stats: Stats; start: number; size: number }
  /**
   * Those below device-mapper, md, bcache and the like. Two that one `allocator` made of a device do not
   * overlap.
   */
  slaves: { device: string; allocator?: string }[]
}

const SECTOR = 512

/** The block devices of the system, by major:minor; each is looked at once. */
export class BlockDevices {
  readonly #sys: string
  readonly #known = new Map<string, Promise<BlockDevice>>()

  /** @param sys where sysfs is mounted */
  constructor(sys: string) {
    this.#sys = sys
  }

  async get(device: string): Promise<BlockDevice> {
    const known = this.#known.get(device) ?? look(join(this.#sys, 'dev/block', device), device)
    this.#known.set(device, known)
    return await known
  }
}

async function look(directory: string, device: string): Promise<BlockDevice> {
  return {
    names: await worldWideNames(directory),
    partition: await partitionOf(directory),
    loop: await loopOf(directory, device),
    slaves: await slavesOf(directory),
  }
}

async function worldWideNames(directory: string): Promise<string[]> {
  const names: string[] = []
  for (const file of ['wwid', 'device/wwid']) {
    const name = await content(join(directory, file))
    if (name && /^(naa|eui|uuid)\./.test(name)) names.push(name)
  }
  return names
}

async function partitionOf(directory: string): Promise<BlockDevice['partition']> {
  if ((await content(join(directory, 'partition'))) === undefined) return undefined
  // Not join(), which would take the link before `..` for a directory.
  const disk = await content(`${directory}/../dev`)
  const start = Number(await content(join(directory, 'start'))) * SECTOR
  const size = Number(await content(join(directory, 'size'))) * SECTOR
  return disk ? { disk, start, size } : undefined
}

async function loopOf(directory: string, device: string): Promise<BlockDevice['loop']> {
  const path = await content(join(directory, 'loop/backing_file'))
  if (path === undefined) return undefined
  const exact = await loopStatus(directory, device)
  if (exact) {
    const { dev, ino, rdev, offset, sizeLimit } = exact
    const size = sizeLimit === 0n ? Number.POSITIVE_INFINITY : Number(sizeLimit)
    return {
      stats: { dev, ino, rdev, isBlockDevice: () => rdev !== 0n },
      start: Number(offset),
      size,
    }
  }
  const stats = await stat(path).catch(() => undefined)
  if (!stats) return undefined
  const start = Number((await content(join(directory, 'loop/offset'))) ?? 0)
  const limit = Number((await content(join(directory, 'loop/sizelimit'))) ?? 0)
  return { stats, start, size: limit === 0 ? Number.POSITIVE_INFINITY : limit }
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

async function slavesOf(directory: string): Promise<BlockDevice['slaves']> {
  const names = await readdir(join(directory, 'slaves')).catch(() => [])
  if (names.length === 0) return []
  const kind = /^(LVM|part\d+)-/.exec((await content(join(directory, 'dm/uuid'))) ?? '')?.[1]
  const slaves: BlockDevice['slaves'] = []
  for (const name of names) {
    const device = await content(join(directory, 'slaves', name, 'dev'))
    if (!device) continue
    // Logical volumes do not overlap, and neither do partitions that kpartx made.
    const allocator = kind && `${kind === 'LVM' ? 'LVM' : 'kpartx'} on ${device}`
    slaves.push({ device, allocator })
  }
  return slaves
}

/** Content of a sysfs file; undefined if there is none. */
async function content(path: string): Promise<string | undefined> {
  return await readFile(path).then(
    (bytes) => decodeText(bytes).replace(/\n$/, ''),
    () => undefined,
  )
}

/** major:minor of a device number as stat(2) has it. */
export function numberOf(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  return `${major}:${minor & 0xffffffffn}`
}
