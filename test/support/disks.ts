/** Making disks with known content, and reading them back. */
import { createCipheriv } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

/** Bytes of a disk, and their offset. */
export interface Part {
  /** Guest offset, bytes. */
  at: number
  bytes: Buffer
}

/** Bytes that no method can compress, the same for the same seed. */
export function noise(length: number, seed = 1): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32LE(seed)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

/** Bytes that compress to about a tenth, none of them zero. */
export function prose(length: number, seed = 1): Buffer {
  const digits = Math.ceil(length / 20) + 1
  const random = noise(digits, seed)
  const lines: string[] = []
  for (let i = 0; i < digits; i++) lines.push(`the quick brown ${random[i].toString(16)} fox\n`)
  return Buffer.from(lines.join('').slice(0, length))
}

/** Makes a sparse file of `size` bytes; parts past the size are left out. */
export function makeRaw(path: string, size: number, parts: readonly Part[]): string {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  for (const { at, bytes } of parts) {
    const length = Math.min(bytes.length, size - at)
    for (let done = 0; done < length; ) {
      done += writeSync(fd, bytes, done, length - done, at + done)
    }
  }
  closeSync(fd)
  return path
}

/** The content of a disk of `size` bytes with such parts; later parts lie over earlier ones. */
export function contentOfParts(size: number, parts: readonly Part[]): Buffer {
  const content = Buffer.alloc(size)
  for (const { at, bytes } of parts) if (at < size) bytes.copy(content, at)
  return content
}

/** The first byte in which two files differ; undefined if they are equal, to their lengths. */
export function firstDifference(a: string | Buffer, b: string | Buffer): number | undefined {
  const [left, right] = [a, b].map((it) => (typeof it === 'string' ? readFileSync(it) : it))
  if (left.equals(right)) return undefined
  let at = 0
  while (at < left.length && at < right.length && left[at] === right[at]) at++
  return at
}
