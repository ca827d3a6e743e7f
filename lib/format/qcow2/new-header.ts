import { encodeText } from '../../text.ts'
import {
  EXT_BACKING_FORMAT,
  FIELD,
  MAGIC,
  MAX_BACKING_NAME,
  V3_HEADER_LENGTH,
} from './constants.ts'
import { encodeExtensions } from './encode.ts'

/** Refcounts of 16 bits (spec: refcount_order). */
const REFCOUNT_ORDER = 4

/** What the header of a new image says. All offsets are bytes. */
export interface NewHeader {
  clusterBits: number
  /** Virtual size, bytes. */
  size: number
  /** Entries of the L1 table, and its offset; 0 and 0: there is none. */
  l1Size: number
  l1Offset: number
  refcountTableOffset: number
  refcountTableClusters: number
  /** The name and the format as they are recorded. */
  backing?: { name: string; format: string }
}

/**
 * The first cluster of a new version 3 image with no features (spec: "Header").
 * @returns a whole cluster; undefined if the backing file's name is too long for it
 */
export function encodeNewHeader(header: NewHeader): Buffer | undefined {
  const { backing } = header
  const cluster = Buffer.alloc(2 ** header.clusterBits)
  cluster.writeUInt32BE(MAGIC, 0)
  cluster.writeUInt32BE(3, FIELD.version)
  cluster.writeUInt32BE(header.clusterBits, FIELD.clusterBits)
  cluster.writeBigUInt64BE(BigInt(header.size), FIELD.size)
  cluster.writeUInt32BE(header.l1Size, FIELD.l1Size)
  cluster.writeBigUInt64BE(BigInt(header.l1Offset), FIELD.l1TableOffset)
  cluster.writeBigUInt64BE(BigInt(header.refcountTableOffset), FIELD.refcountTableOffset)
  cluster.writeUInt32BE(header.refcountTableClusters, FIELD.refcountTableClusters)
  cluster.writeUInt32BE(REFCOUNT_ORDER, FIELD.refcountOrder)
  cluster.writeUInt32BE(V3_HEADER_LENGTH, FIELD.headerLength)
  const format = { type: EXT_BACKING_FORMAT, data: encodeText(backing?.format ?? '') }
  const area = encodeExtensions(backing ? [format] : [])
  area.copy(cluster, V3_HEADER_LENGTH)
  if (!backing) return cluster
  const name = encodeText(backing.name)
  const nameOffset = V3_HEADER_LENGTH + area.length
  if (name.length > MAX_BACKING_NAME || nameOffset + name.length > cluster.length) return undefined
  cluster.writeBigUInt64BE(BigInt(nameOffset), FIELD.backingFileOffset)
  cluster.writeUInt32BE(name.length, FIELD.backingFileSize)
  name.copy(cluster, nameOffset)
  return cluster
}
