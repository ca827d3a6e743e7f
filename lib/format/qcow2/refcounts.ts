/** Entries of refcount blocks (spec: "Host cluster management"). Pure. */

/** A refcount; of 64 bits it may be more than a number holds. */
export type Refcount = number | bigint

/** Entry `n` of a block; of less than 8 bits, the first of a byte is in its lowest ones. */
export function decodeRefcount(block: Buffer, n: number, bits: number): Refcount {
  switch (bits) {
    case 8:
      return block[n]
    case 16:
      // Not by readUInt16BE, which checks its argument each time.
      return (block[n * 2] << 8) | block[n * 2 + 1]
    case 32:
      return block.readUInt32BE(n * 4)
    case 64: {
      const refcount = block.readBigUInt64BE(n * 8)
      return refcount <= Number.MAX_SAFE_INTEGER ? Number(refcount) : refcount
    }
    default:
      return (block[(n * bits) >> 3] >> ((n * bits) & 7)) & (2 ** bits - 1)
  }
}

/** Sets entry `n` of a block. */
export function encodeRefcount(block: Buffer, n: number, bits: number, value: Refcount): void {
  const refcount = Number(value)
  switch (bits) {
    case 8:
      block[n] = refcount
      break
    case 16:
      block.writeUInt16BE(refcount, n * 2)
      break
    case 32:
      block.writeUInt32BE(refcount, n * 4)
      break
    case 64:
      block.writeBigUInt64BE(BigInt(value), n * 8)
      break
    default: {
      const at = (n * bits) >> 3
      const shift = (n * bits) & 7
      block[at] = (block[at] & ~((2 ** bits - 1) << shift)) | (refcount << shift)
    }
  }
}
