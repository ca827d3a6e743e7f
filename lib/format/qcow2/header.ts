import {
  COMPRESSION_TYPE_OFFSET,
  DATA_FILE_RAW,
  EXTENDED_L2,
  EXTERNAL_DATA_FILE,
  MAGIC,
  MAX_BACKING_NAME,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  SECTOR_SIZE,
  V2_HEADER_LENGTH,
  V3_HEADER_MIN_LENGTH,
} from './constants.ts'
import type { Extensions } from './extensions.ts'
import { decodeExtensions } from './extensions.ts'
import { badImage, cString, u64, unsupported } from './fields.ts'

/** A qcow2 header, fields in the spec's order and by its names. Offsets and sizes are bytes. */
export interface Qcow2Header {
  version: number
  backingFileOffset: number
  backingFileSize: number
  clusterBits: number
  /** As it stands in the image; what the guest sees is `virtualSize`. */
  size: number
  /** 0 none, 1 AES, 2 LUKS. */
  cryptMethod: number
  /** Entries of the active L1 table. */
  l1Size: number
  l1TableOffset: number
  refcountTableOffset: number
  refcountTableClusters: number
  nbSnapshots: number
  snapshotsOffset: number
  incompatibleFeatures: bigint
  compatibleFeatures: bigint
  autoclearFeatures: bigint
  /** A refcount is 2^refcountOrder bits wide. */
  refcountOrder: number
  headerLength: number
  /** 0 deflate, 1 zstd. */
  compressionType: number
  extensions: Extensions
  /** The backing file's name as it stands in the image. Not to be followed without the gate. */
  backingFile?: string

  /** Derived: 2^clusterBits. */
  clusterSize: number
  /** Derived: what the guest sees. QEMU rounds the size down to sectors, so we do. */
  virtualSize: number
  /** Derived: L2 entries are 128 bits wide and know 32 subclusters. */
  extendedL2: boolean
  /** Derived: guest data is in another file. */
  externalDataFile: boolean
  /** Derived: the external data file is readable as a raw image. */
  dataFileRaw: boolean
}

/**
 * Decodes a header of version 2 or 3 with its extensions. Checks what must hold for the bytes to
 * mean anything; whether the tables it points to can be true is `validateHeader`'s.
 * @param head the image's first cluster, or its first 2 MiB; shorter only if the file is
 * @param path for messages
 * @throws BackupError BAD_IMAGE, or UNSUPPORTED for another version
 */
export function decodeHeader(head: Buffer, path: string): Qcow2Header {
  if (head.length < 4 || head.readUInt32BE(0) !== MAGIC) {
    throw badImage(path, 'image is not in qcow2 format')
  }
  requireBytes(head, V2_HEADER_LENGTH, path)
  const version = head.readUInt32BE(4)
  if (version !== 2 && version !== 3)
    throw unsupported(path, `unsupported qcow2 version ${version}`)
  const clusterBits = head.readUInt32BE(20)
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw badImage(path, `unsupported cluster size 2^${clusterBits}`)
  }
  const clusterSize = 2 ** clusterBits
  const v3 = version === 3 ? decodeVersion3(head, clusterSize, path) : VERSION_2
  const size = u64(head, 24, 'virtual size', path)

  const backingFileOffset = u64(head, 8, 'backing file offset', path)
  const backingFileSize = head.readUInt32BE(16)
  if (backingFileOffset > clusterSize) throw badImage(path, 'invalid backing file offset')
  const extensionsEnd = backingFileOffset || clusterSize
  const extensions = decodeExtensions(head.subarray(v3.headerLength, extensionsEnd), path)

  return {
    version,
    backingFileOffset,
    backingFileSize,
    clusterBits,
    size,
    cryptMethod: head.readUInt32BE(32),
    l1Size: head.readUInt32BE(36),
    l1TableOffset: u64(head, 40, 'L1 table offset', path),
    refcountTableOffset: u64(head, 48, 'refcount table offset', path),
    refcountTableClusters: head.readUInt32BE(56),
    nbSnapshots: head.readUInt32BE(60),
    snapshotsOffset: u64(head, 64, 'snapshot table offset', path),
    ...v3,
    extensions,
    backingFile: backingName(head, backingFileOffset, backingFileSize, clusterSize, path),
    clusterSize,
    virtualSize: Math.floor(size / SECTOR_SIZE) * SECTOR_SIZE,
    extendedL2: (v3.incompatibleFeatures & EXTENDED_L2) !== 0n,
    externalDataFile: (v3.incompatibleFeatures & EXTERNAL_DATA_FILE) !== 0n,
    dataFileRaw: (v3.autoclearFeatures & DATA_FILE_RAW) !== 0n,
  }
}

/** What version 3 added, as version 2 has it. */
const VERSION_2 = {
  incompatibleFeatures: 0n,
  compatibleFeatures: 0n,
  autoclearFeatures: 0n,
  refcountOrder: 4,
  headerLength: V2_HEADER_LENGTH,
  compressionType: 0,
}

function decodeVersion3(head: Buffer, clusterSize: number, path: string): typeof VERSION_2 {
  requireBytes(head, V3_HEADER_MIN_LENGTH, path)
  const headerLength = head.readUInt32BE(100)
  if (headerLength < V3_HEADER_MIN_LENGTH) {
    throw badImage(path, `the header's length of ${headerLength} bytes is too short`)
  }
  if (headerLength > clusterSize) {
    throw badImage(path, `the header's length of ${headerLength} bytes exceeds the cluster size`)
  }
  requireBytes(head, headerLength, path)
  return {
    incompatibleFeatures: head.readBigUInt64BE(72),
    compatibleFeatures: head.readBigUInt64BE(80),
    autoclearFeatures: head.readBigUInt64BE(88),
    refcountOrder: head.readUInt32BE(96),
    headerLength,
    compressionType: headerLength > COMPRESSION_TYPE_OFFSET ? head[COMPRESSION_TYPE_OFFSET] : 0,
  }
}

function requireBytes(head: Buffer, length: number, path: string): void {
  if (head.length < length) throw badImage(path, 'the file ends inside the qcow2 header')
}

function backingName(
  head: Buffer,
  offset: number,
  size: number,
  clusterSize: number,
  path: string,
): string | undefined {
  if (offset === 0) return undefined
  if (size > Math.min(MAX_BACKING_NAME, clusterSize - offset)) {
    throw badImage(path, `the backing file name of ${size} bytes is too long`)
  }
  return cString(head.subarray(offset, offset + size)) || undefined
}
