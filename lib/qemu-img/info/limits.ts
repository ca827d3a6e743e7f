/** The result of `info --limits`: constraints on QEMU's requests to an image. */
import { constants, descriptorPath, type FileHandle, open, readFile } from '../../files.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import { QemuImgError } from '../messages.ts'

/** Bytes, but for `maxIov`. QEMU's block layer calls these the limits of a node. */
export interface BlockLimits {
  writeZeroesAlignment?: number
  requestAlignment: number
  minMemAlignment: number
  discardAlignment?: number
  optMemAlignment: number
  /** Buffers of a request. */
  maxIov: number
}

/** Those of an image, and of the file that it is in. */
export interface ImageLimits {
  image: BlockLimits
  file: BlockLimits
}

const IOV_MAX = 1024
const SECTOR_SIZE = 512
/** Of ECMAScript's companion, as much as is used here; TypeScript knows it as a part of browsers. */
declare const WebAssembly: {
  Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer }
}

/** Kind of entry in /proc/self/auxv: the size of a page. */
const AT_PAGESZ = 6n

/** How the file is read. */
export interface LimitsOptions {
  /** Past the page cache, O_DIRECT. */
  direct: boolean
  /** The image's format was not given: QEMU then guards the first sector of a raw one. */
  guessed: boolean
}

/**
 * The limits of an image that is open.
 * @throws QemuImgError of a block device, whose limits only its driver knows
 */
export async function limitsOf(
  { path, file, header }: ChainImage,
  { direct, guessed }: LimitsOptions,
): Promise<ImageLimits> {
  if (file.blockDevice) {
    throw new QemuImgError(`--limits: not supported for block devices: '${path}'`)
  }
  const page = await pageSize()
  const aligned = direct ? await probeAlignment(file.handle, path, page) : { request: 1, memory: 1 }
  const common = {
    minMemAlignment: aligned.memory,
    optMemAlignment: Math.max(page, aligned.memory),
    maxIov: IOV_MAX,
  }
  const ofFile: BlockLimits = { requestAlignment: aligned.request, ...common }
  if (!header) {
    return { image: { ...common, requestAlignment: guessed ? SECTOR_SIZE : 1 }, file: ofFile }
  }
  const image = {
    ...common,
    writeZeroesAlignment: header.extendedL2 ? header.clusterSize / 32 : header.clusterSize,
    // Encryption is by sectors.
    requestAlignment: header.cryptMethod === 0 ? 1 : SECTOR_SIZE,
    discardAlignment: header.clusterSize,
  }
  return { image, file: ofFile }
}

/** Bytes; of the auxiliary vector, as every process gets it. */
async function pageSize(): Promise<number> {
  const vector = await readFile('/proc/self/auxv')
  for (let at = 0; at + 16 <= vector.length; at += 16) {
    if (vector.readBigUInt64LE(at) === AT_PAGESZ) return Number(vector.readBigUInt64LE(at + 8))
  }
  return 4096
}

/**
 * Which alignments of requests and of memory the file system takes: found by trying, in QEMU's order.
 * @throws QemuImgError where there is no O_DIRECT
 */
async function probeAlignment(
  file: FileHandle,
  path: string,
  page: number,
): Promise<{ request: number; memory: number }> {
  const handle = await open(descriptorPath(file), constants.O_RDONLY | constants.O_DIRECT).catch(
    (cause) => {
      const why = 'filesystem does not support O_DIRECT'
      throw new QemuImgError(`Could not open '${path}': Could not open '${path}': ${why}`, 1, {
        cause,
      })
    },
  )
  try {
    const most = Math.max(page, 4096)
    // The memory of WebAssembly begins at a page; that of a buffer anywhere.
    const memory = new WebAssembly.Memory({ initial: 1 + Math.ceil((2 * most) / 65536) }).buffer
    const takes = (offset: number, length: number) => canRead(handle, memory, offset, length)
    return {
      request: await smallest((alignment) => takes(0, alignment), most),
      memory: await smallest((alignment) => takes(alignment, most), most),
    }
  } finally {
    await handle.close()
  }
}

/** The first alignment that is taken; `most` if none is, or if any would be. */
async function smallest(
  takes: (alignment: number) => Promise<boolean>,
  most: number,
): Promise<number> {
  for (const alignment of [1, 512, 1024, 2048, 4096]) {
    if (await takes(alignment)) return alignment === 1 ? most : alignment
  }
  return most
}

async function canRead(
  handle: FileHandle,
  memory: ArrayBuffer,
  offset: number,
  length: number,
): Promise<boolean> {
  try {
    await handle.read(new Uint8Array(memory, offset, length), 0, length, 0)
    return true
  } catch (error) {
    // Anything else is for those to report who need the bytes.
    return (error as NodeJS.ErrnoException).code !== 'EINVAL'
  }
}
