/** Images with as many runs as their tables can hold, whose data is mostly holes of the file. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { bitmapEntry, entries } from './image-builder.ts'

const COPIED = 1n << 63n

export interface Fragmented {
  /** Virtual size, bytes. */
  size: number
  clusterBits: number
  /** Every how many clusters one is allocated. */
  every: number
  /** Bytes of each allocated cluster; default: holes, which read as zero. */
  content?: Buffer
  backing?: string
  /** Each has all clusters of bits stored, every byte of them `bits`. */
  bitmaps?: readonly { name: string; granularityBits: number; bits: number }[]
}

/** Makes a qcow2 image of version 3, sound in every refcount. */
export function makeFragmented(path: string, disk: Fragmented): void {
  const { size, clusterBits, every, content, backing, bitmaps = [] } = disk
  const clusterSize = 2 ** clusterBits
  const clusters = Math.ceil(size / clusterSize)
  const perTable = clusterSize / 8
  const tables = Math.ceil(clusters / perTable)
  const file = openSync(path, 'w')
  let next = 1
  const take = (bytes: number) => {
    const offset = next * clusterSize
    next += Math.ceil(bytes / clusterSize)
    return offset
  }
  const put = (bytes: Buffer) => {
    const offset = take(bytes.length)
    writeSync(file, bytes, 0, bytes.length, offset)
    return offset
  }

  const l2 = take(tables * clusterSize)
  const l1 = put(
    entries(
      Array.from({ length: tables }, (_, i) => l2 + i * clusterSize),
      COPIED,
    ),
  )
  const directory = bitmaps.map(({ name, granularityBits, bits }) => {
    const bytes = Math.ceil(size / 2 ** granularityBits / 8)
    const data = put(Buffer.alloc(bytes, bits))
    const used = Math.ceil(bytes / clusterSize)
    const table = put(entries(Array.from({ length: used }, (_, i) => data + i * clusterSize)))
    return bitmapEntry(name, table, used, granularityBits)
  })
  const directoryOffset = directory.length > 0 ? put(Buffer.concat(directory)) : 0

  const mapped = Buffer.alloc(tables * clusterSize)
  for (let cluster = 0; cluster < clusters; cluster += every) {
    const offset = content ? put(content) : take(clusterSize)
    mapped.writeBigUInt64BE(BigInt(offset) | COPIED, cluster * 8)
  }
  writeSync(file, mapped, 0, mapped.length, l2)

  // Refcounts of 16 bits, of themselves too.
  const perBlock = clusterSize / 2
  let blocks = 1
  const room = () => Math.ceil((blocks * 8) / clusterSize)
  while (blocks * perBlock < next + blocks + room()) blocks++
  const tableClusters = room()
  const table = take(tableClusters * clusterSize)
  const first = take(blocks * clusterSize)
  const named = entries(Array.from({ length: blocks }, (_, i) => first + i * clusterSize))
  writeSync(file, named, 0, named.length, table)
  const ones = Buffer.alloc(next * 2)
  for (let i = 1; i < ones.length; i += 2) ones[i] = 1
  writeSync(file, ones, 0, ones.length, first)

  const header = Buffer.alloc(clusterSize)
  header.write('514649fb00000003', 'hex')
  header.writeUInt32BE(clusterBits, 20)
  header.writeBigUInt64BE(BigInt(size), 24)
  header.writeUInt32BE(tables, 36)
  header.writeBigUInt64BE(BigInt(l1), 40)
  header.writeBigUInt64BE(BigInt(table), 48)
  header.writeUInt32BE(tableClusters, 56)
  header.writeUInt32BE(4, 96)
  header.writeUInt32BE(112, 100)
  let at = 112
  const extension = (type: number, bytes: Buffer) => {
    header.writeUInt32BE(type, at)
    header.writeUInt32BE(bytes.length, at + 4)
    bytes.copy(header, at + 8)
    at += 8 + Math.ceil(bytes.length / 8) * 8
  }
  if (directory.length > 0) {
    header.writeBigUInt64BE(1n, 88)
    const bytes = Buffer.alloc(24)
    bytes.writeUInt32BE(directory.length)
    bytes.writeBigUInt64BE(BigInt(Buffer.concat(directory).length), 8)
    bytes.writeBigUInt64BE(BigInt(directoryOffset), 16)
    extension(0x23852875, bytes)
  }
  if (backing !== undefined) {
    extension(0xe2792aca, Buffer.from('qcow2'))
    at += 8
    header.write(backing, at)
    header.writeBigUInt64BE(BigInt(at), 8)
    header.writeUInt32BE(Buffer.byteLength(backing), 16)
  }
  writeSync(file, header, 0, header.length, 0)
  ftruncateSync(file, next * clusterSize)
  closeSync(file)
}
