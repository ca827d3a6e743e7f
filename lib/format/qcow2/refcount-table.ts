/** Bits 9 to 63 of an entry are the offset, bits 0 to 8 must be 0; of its low half. */
const OFFSET_LOW = 0xfffffe00
const RESERVED = 0x1ff

/** An entry of the refcount table. */
export interface TableEntry {
  /** Offset of the block, bytes, rounded if it is not a valid offset; 0: there is none. */
  offset: number
  aligned: boolean
  reserved: boolean
}

/** Entry `index` of a refcount table. */
export function tableEntry(table: Buffer, index: number, clusterSize: number): TableEntry {
  const low = table.readUInt32BE(index * 8 + 4)
  return {
    offset: table.readUInt32BE(index * 8) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0),
    // By its low half: of a number above 2^53 the lowest bits are lost.
    aligned: (low & OFFSET_LOW & (clusterSize - 1)) === 0,
    reserved: (low & RESERVED) !== 0,
  }
}

/** QEMU's message for an unaligned entry, when it needs the block. */
export function unaligned(table: Buffer, index: number): string {
  const offset = table.readBigUInt64BE(index * 8) & ~BigInt(RESERVED)
  return `Refblock offset 0x${offset.toString(16)} unaligned (reftable index: ${alternate(index)})`
}

/** A number as C's `%#x` prints it. */
export function alternate(n: number): string {
  return n === 0 ? '0' : `0x${n.toString(16)}`
}
