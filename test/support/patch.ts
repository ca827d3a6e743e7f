/** Changing bytes of files, for tests that make broken images out of sound ones. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'

/** Reads `length` bytes at `offset`. */
export function peek(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, 'r')
  const buffer = Buffer.alloc(length)
  readSync(fd, buffer, 0, length, offset)
  closeSync(fd)
  return buffer
}

/** Writes bytes at `offset`; a number is 32 bits wide, a bigint 64, big endian. */
export function poke(path: string, offset: number, value: Buffer | string | number | bigint): void {
  let bytes: Buffer
  if (typeof value === 'number') {
    bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(value)
  } else if (typeof value === 'bigint') {
    bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(value)
  } else {
    bytes = Buffer.from(value)
  }
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
}

/** Bytes of a file. */
export function sizeOf(path: string): number {
  const fd = openSync(path, 'r')
  const { size } = fstatSync(fd)
  closeSync(fd)
  return size
}

/** The big-endian 64-bit number at `offset`. */
export function peek64(path: string, offset: number): bigint {
  return peek(path, offset, 8).readBigUInt64BE()
}
