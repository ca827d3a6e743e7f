import { createCipheriv } from 'node:crypto'
import { seeded } from './random.ts'

/** Maximum bytes made at once; kinds of content alternate at least this often. */
export const CHUNK = 2 ** 20
const BLOCK = 4096
const WORDS =
  'a and backup bitmap block chain cluster copy data disk extent file for header image in is it \
level map node of offset on page read sector size snapshot table the to vector with write zero'
    .split(' ')
    .concat('\n')

/** Makes the bytes of a data extent's part. */
export type Content = (offset: number, length: number) => Buffer

/**
 * Half noise that no compressor shrinks, half text that all do, in turn. No block of 4 KiB is all
 * zero, and no two are alike, so that a block in the wrong place shows.
 */
export function mixedContent(): Content {
  const noise = noiseContent()
  const text = textContent()
  let turn = 0
  return (offset, length) => (turn++ % 2 === 0 ? noise : text)(offset, length)
}

/** An AES key stream: noise at gigabytes a second, and the same each time. */
export function noiseContent(): Content {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16, 2))
  const zeroes = Buffer.alloc(CHUNK)
  return (_offset, length) => cipher.update(zeroes.subarray(0, length))
}

/** Words in random order, cut from one pool; each block begins with its own guest offset. */
function textContent(): Content {
  const random = seeded(3)
  let words = ''
  while (words.length < 4 * CHUNK) words += `${WORDS[Math.floor(random() * WORDS.length)]} `
  const pool = Buffer.from(words, 'latin1')
  return (offset, length) => {
    const begin = Math.floor(random() * (pool.length - length))
    const bytes = Buffer.from(pool.subarray(begin, begin + length))
    for (let at = 0; at < length; at += BLOCK) bytes.write(`${offset + at} `, at, 'latin1')
    return bytes
  }
}
