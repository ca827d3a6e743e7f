import { malformed, notSupported } from '../format-error.ts'
import {
  DATA_FILE_RAW,
  EXTENDED_L2,
  EXTERNAL_DATA_FILE,
  FIELD,
  MAGIC,
  MAX_BACKING_NAME,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  SECTOR_SIZE,
  V2_HEADER_LENGTH,
  V3_HEADER_LENGTH,
  V3_HEADER_MIN_LENGTH,
} from './constants.ts'
import { decodeExtensions, readFeatureNames } from './extensions.ts'
import { cString, u64 } from './fields.ts'
import type { HeaderFields, Qcow2Header } from './header-fields.ts'
import {
  requireFeatures,
  requireKnownEncryption,
  requireLuksHeader,
  requireTables,
} from './validate.ts'

/** The purpose of decoding a header. */
export interface HeaderOptions {
  /** To check the image: faults that a check reports or repairs are accepted. Default: no. */
  checking?: boolean
}

/**
 * Decodes a header of version 2 or 3 with its extensions, and checks everything in it that can be
 * checked without reading further, as QEMU does on open and in its order. The dirty and corrupt
 * flags only forbid writing.
 * @param head the image's first cluster, or its first 2 MiB; shorter only if the file is, which then
 * counts as filled up with zeroes
 * @throws FormatError BAD_IMAGE, or UNSUPPORTED for unknown features
 */
export function decodeHeader(head: Buffer, options: HeaderOptions = {}): Qcow2Header {
  if (head.length < 4 || head.readUInt32BE(0) !== MAGIC) {
    throw malformed('image is not in qcow2 format', 'Image is not in qcow2 format')
  }
  const fields = decodeFields(filledUp(head, V3_HEADER_LENGTH))
  // Not all of the cluster: an image of a few bytes may claim clusters of 2 MiB.
  const cluster = filledUp(head, Math.min(fields.clusterSize, head.length + FILL))
  requireFeatures(fields, () => readFeatureNames(cluster, fields))
  requireTables(fields, options.checking)
  requireKnownEncryption(fields)
  const extensions = decodeExtensions(cluster, fields)
  requireLuksHeader(fields, extensions)
  return { ...fields, extensions, backingFile: backingName(cluster, fields) }
}

/** Zeroes that are filled in past the end of a file, bytes. */
const FILL = 4096

function filledUp(head: Buffer, length: number): Buffer {
  return head.length < length ? Buffer.concat([head], length) : head
}

function decodeFields(head: Buffer): HeaderFields {
  const version = head.readUInt32BE(FIELD.version)
  if (version !== 2 && version !== 3) {
    const why = `qcow2 version ${version}`
    throw notSupported(`unsupported ${why}`, `Unsupported ${why}`)
  }
  const clusterBits = head.readUInt32BE(FIELD.clusterBits)
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    const bits = `2^${clusterBits}`
    throw malformed(`unsupported cluster size ${bits}`, `Unsupported cluster size: ${bits}`)
  }
  const clusterSize = 2 ** clusterBits
  const v3 = version === 3 ? decodeVersion3(head, clusterSize) : VERSION_2
  const backingFileOffset = u64(head, FIELD.backingFileOffset)
  if (backingFileOffset > clusterSize) {
    throw malformed('invalid backing file offset', 'Invalid backing file offset')
  }
  // Rounded from 2^53 on, which no image that can be read is.
  const size = Number(head.readBigUInt64BE(FIELD.size))
  return {
    version,
    backingFileOffset,
    backingFileSize: head.readUInt32BE(FIELD.backingFileSize),
    clusterBits,
    size,
    cryptMethod: head.readUInt32BE(FIELD.cryptMethod),
    l1Size: head.readUInt32BE(FIELD.l1Size),
    l1TableOffset: u64(head, FIELD.l1TableOffset),
    refcountTableOffset: u64(head, FIELD.refcountTableOffset),
    refcountTableClusters: head.readUInt32BE(FIELD.refcountTableClusters),
    nbSnapshots: head.readUInt32BE(FIELD.nbSnapshots),
    snapshotsOffset: u64(head, FIELD.snapshotsOffset),
    ...v3,
    clusterSize,
    virtualSize: Math.floor(size / SECTOR_SIZE) * SECTOR_SIZE,
    extendedL2: (v3.incompatibleFeatures & EXTENDED_L2) !== 0n,
    externalDataFile: (v3.incompatibleFeatures & EXTERNAL_DATA_FILE) !== 0n,
    dataFileRaw: (v3.autoclearFeatures & DATA_FILE_RAW) !== 0n,
  }
}

/** Version 2's values of the fields that version 3 added. */
const VERSION_2 = {
  incompatibleFeatures: 0n,
  compatibleFeatures: 0n,
  autoclearFeatures: 0n,
  refcountOrder: 4,
  headerLength: V2_HEADER_LENGTH,
  compressionType: 0,
}

function decodeVersion3(head: Buffer, clusterSize: number): typeof VERSION_2 {
  const headerLength = head.readUInt32BE(FIELD.headerLength)
  const why = `the header's length of ${headerLength} bytes`
  if (headerLength < V3_HEADER_MIN_LENGTH) {
    throw malformed(`${why} is too short`, 'qcow2 header too short')
  }
  if (headerLength > clusterSize) {
    throw malformed(`${why} exceeds the cluster size`, 'qcow2 header exceeds cluster size')
  }
  return {
    incompatibleFeatures: head.readBigUInt64BE(FIELD.incompatibleFeatures),
    compatibleFeatures: head.readBigUInt64BE(FIELD.compatibleFeatures),
    autoclearFeatures: head.readBigUInt64BE(FIELD.autoclearFeatures),
    refcountOrder: head.readUInt32BE(FIELD.refcountOrder),
    headerLength,
    compressionType: headerLength > FIELD.compressionType ? head[FIELD.compressionType] : 0,
  }
}

function backingName(cluster: Buffer, fields: HeaderFields): string | undefined {
  const { backingFileOffset: offset, backingFileSize: size, clusterSize } = fields
  if (offset === 0) return undefined
  if (size > Math.min(MAX_BACKING_NAME, clusterSize - offset)) {
    const why = `the backing file name of ${size} bytes is too long`
    throw malformed(why, 'Backing file name too long')
  }
  return cString(cluster.subarray(offset, offset + size)) || undefined
}
