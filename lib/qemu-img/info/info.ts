import type { LuksHeader } from '../../format/luks.ts'
import { CORRUPT, CRYPT_AES, DIRTY, LAZY_REFCOUNTS } from '../../format/qcow2/constants.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import type { Snapshot } from '../../format/qcow2/snapshots.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import { fullName } from '../filename.ts'
import type { Qcow2Metadata } from '../metadata.ts'
import { type OpenChainOptions, walkImages } from '../qemu-chain.ts'
import { type ImageLimits, limitsOf } from './limits.ts'

/** A persistent bitmap, as it is described. */
export interface BitmapInfo {
  name: string
  /** Bytes per bit. */
  granularity: number
  /** The last program that opened it did not store it. */
  inUse: boolean
  /** It records writes. */
  auto: boolean
}

/** Properties of a qcow2 image. */
export interface Qcow2Info {
  /** `0.10` is version 2, `1.1` version 3. */
  compat: '0.10' | '1.1'
  compressionType: 'zlib' | 'zstd'
  refcountBits: number
  lazyRefcounts: boolean
  corrupt: boolean
  extendedL2: boolean
  bitmaps: BitmapInfo[]
  /** Its data is in another file. */
  externalDataFile: boolean
  /** Name of the data file, as in the image. */
  dataFile?: string
  /** That is a raw image by itself. */
  dataFileRaw: boolean
  /** How it is encrypted, if it is. */
  encryption?: { method: 'aes' } | { method: 'luks'; header: LuksHeader }
}

/** Description of an image; sizes in bytes. */
export interface ImageInfo {
  /** As QEMU names it. */
  filename: string
  format: 'raw' | 'qcow2'
  /** Bytes. */
  virtualSize: number
  /** Blocks that the file system allocated to its file, bytes. */
  actualSize: number
  /** Bytes of its file. */
  fileSize: number
  /** It is on a block device. */
  blockDevice: boolean
  /** Of a qcow2 image, bytes. */
  clusterSize?: number
  encrypted: boolean
  /** The last program that wrote to it did not close it. */
  dirty: boolean
  /** Name of its backing file, as in the image. */
  backingFile?: string
  /** Name of its backing file, relative to the image's directory. */
  fullBackingFile?: string
  backingFormat?: string
  snapshots: Snapshot[]
  qcow2?: Qcow2Info
}

/** Options of the command only. */
export interface DescribeOptions extends OpenChainOptions {
  /** To find the limits too: those of reading through the page cache, or past it. */
  limits?: 'cached' | 'direct'
}

/** An image as the command describes it. */
export interface DescribedImage extends ImageInfo {
  limits?: ImageLimits
}

/**
 * Describes an image by itself. Nothing else is opened: not its backing file, nor its data file.
 * @throws QemuImgError
 */
export async function imageInfo(
  name: string,
  options: DescribeOptions = {},
): Promise<DescribedImage> {
  for await (const info of describeImages(name, options)) return info
  throw new Error('a chain has an image')
}

/**
 * Describes an image and those below it, top first. Every name found inside an image goes through
 * the gate, and no format is guessed but that of the file that the user named.
 * @throws QemuImgError
 */
export async function backingChainInfo(
  name: string,
  options: DescribeOptions = {},
): Promise<DescribedImage[]> {
  const chain: DescribedImage[] = []
  for await (const info of describeImages(name, options)) chain.push(info)
  return chain
}

async function* describeImages(
  name: string,
  options: DescribeOptions,
): AsyncGenerator<DescribedImage> {
  let guessed = options.format === undefined
  for await (const { image, qcow2 } of walkImages(name, options)) {
    const info = describe(image, qcow2)
    const { limits } = options
    const direct = limits === 'direct'
    yield limits ? { ...info, limits: await limitsOf(image, { direct, guessed }) } : info
    guessed = info.backingFormat === undefined
  }
}

function describe(image: ChainImage, qcow2: Qcow2Metadata | undefined): ImageInfo {
  const { path: filename, format, size, file } = image
  const header = qcow2?.header
  const backingFile = header?.backingFile
  return {
    filename,
    format,
    virtualSize: size,
    actualSize: file.allocatedBytes,
    fileSize: file.size,
    blockDevice: file.blockDevice,
    clusterSize: header?.clusterSize,
    encrypted: header !== undefined && header.cryptMethod !== 0,
    dirty: header !== undefined && (header.incompatibleFeatures & DIRTY) !== 0n,
    backingFile,
    fullBackingFile: backingFile === undefined ? undefined : fullName(backingFile, filename),
    backingFormat: header?.extensions.backingFormat || undefined,
    snapshots: qcow2?.snapshots ?? [],
    qcow2: qcow2 && describeQcow2(qcow2),
  }
}

function describeQcow2({ header, bitmaps, luks }: Qcow2Metadata): Qcow2Info {
  return {
    compat: header.version < 3 ? '0.10' : '1.1',
    compressionType: header.compressionType === 0 ? 'zlib' : 'zstd',
    refcountBits: 2 ** header.refcountOrder,
    lazyRefcounts: (header.compatibleFeatures & LAZY_REFCOUNTS) !== 0n,
    corrupt: (header.incompatibleFeatures & CORRUPT) !== 0n,
    extendedL2: header.extendedL2,
    bitmaps: bitmaps.map(({ name, granularityBits, inUse, auto }) => ({
      name,
      granularity: 2 ** granularityBits,
      inUse,
      auto,
    })),
    externalDataFile: header.externalDataFile,
    dataFile: header.extensions.dataFile || undefined,
    dataFileRaw: header.dataFileRaw,
    encryption: describeEncryption(header, luks),
  }
}

function describeEncryption(
  { cryptMethod }: Qcow2Header,
  luks: LuksHeader | undefined,
): Qcow2Info['encryption'] {
  if (luks) return { method: 'luks', header: luks }
  return cryptMethod === CRYPT_AES ? { method: 'aes' } : undefined
}
