import { createHash, getHashes } from 'node:crypto'
import { native } from '../../native.ts'
import { Turns } from '../../turns.ts'
import type { ServedDisk } from '../disk/served-disk.ts'
import { badRequest } from '../ticket/http-error.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { type Exchange, number, parameter, reply } from './exchange.ts'
import { Gone } from './stream.ts'

const DEFAULT_BLOCK = 4 * 2 ** 20
const [MIN_BLOCK, MAX_BLOCK, BLOCK_UNIT] = [2 ** 20, 16 * 2 ** 20, 4096]
/** Bytes that are hashed before others get their turn. */
const STEP = 256 * 1024
/** Their digests are kept: 64 TiB in blocks of 4 MiB take 512 MiB. */
const MOST_BLOCKS = 2 ** 24
/** Checksums that are computed at once; others wait. */
const MOST_AT_ONCE = 2

/** Names that Python's hashlib has, as OpenSSL has them. Ours takes BLAKE2b with a digest of 32 bytes. */
const OPENSSL: Record<string, string> = {
  blake2s: 'blake2s256',
  md5: 'md5',
  sha1: 'sha1',
  sha224: 'sha224',
  sha256: 'sha256',
  sha384: 'sha384',
  sha512: 'sha512',
  sha512_224: 'sha512-224',
  sha512_256: 'sha512-256',
  sha3_224: 'sha3-224',
  sha3_256: 'sha3-256',
  sha3_384: 'sha3-384',
  sha3_512: 'sha3-512',
  sm3: 'sm3',
}

/** A hash of blocks of bytes. */
type Hash = (bytes: Buffer) => Promise<Buffer>

let running = 0
const waiting: (() => void)[] = []

/** The algorithms that a checksum can have. */
export function getAlgorithms(exchange: Exchange): void {
  reply(exchange, 200, {}, { algorithms: algorithms() })
}

function algorithms(): string[] {
  const known = new Set(getHashes())
  const others = Object.keys(OPENSSL).filter((name) => known.has(OPENSSL[name]))
  return ['blake2b', ...others].sort()
}

/** The hash of the hashes of an image's blocks. */
export async function getChecksum(exchange: Exchange, ticket: Ticket): Promise<void> {
  const { request, response } = exchange
  const algorithm = parameter(exchange, 'algorithm') ?? 'blake2b'
  const blockSize = number(exchange, 'block_size') ?? DEFAULT_BLOCK
  if (!algorithms().includes(algorithm)) {
    throw badRequest('The algorithm is none of those that /checksum/algorithms lists')
  }
  if (blockSize < MIN_BLOCK || blockSize > MAX_BLOCK || blockSize % BLOCK_UNIT !== 0) {
    throw badRequest(
      `The block_size is not a multiple of ${BLOCK_UNIT} from ${MIN_BLOCK} to ${MAX_BLOCK}`,
    )
  }
  const hash =
    algorithm === 'blake2b' ? (bytes: Buffer) => native().blake2bOf(bytes) : openssl(algorithm)
  await ticket.use('read', request.socket, async (disk) => {
    await turn()
    try {
      const isWanted = () => {
        if (response.destroyed || ticket.signal.aborted) throw new Gone('the client is gone')
      }
      const checksum = await checksumOf(disk, blockSize, hash, isWanted)
      reply(exchange, 200, {}, { algorithm, block_size: blockSize, checksum })
    } finally {
      running--
      waiting.shift()?.()
    }
  })
}

async function turn(): Promise<void> {
  while (running >= MOST_AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve))
  running++
}

/** In steps, so that a large block keeps nobody waiting. */
function openssl(algorithm: string): Hash {
  return async (bytes) => {
    const hash = createHash(OPENSSL[algorithm])
    const turns = new Turns('checksum')
    for (let at = 0; at < bytes.length; at += STEP) {
      hash.update(bytes.subarray(at, at + STEP))
      const pause = turns.step()
      if (pause) await pause
    }
    return hash.digest()
  }
}

/** Blocks that are zero by the extents are not read. */
async function checksumOf(
  disk: ServedDisk,
  blockSize: number,
  hash: Hash,
  isWanted: () => void,
): Promise<string> {
  const zeroBlock = await hash(Buffer.alloc(Math.min(blockSize, disk.size)))
  const count = Math.ceil(disk.size / blockSize)
  if (count > MOST_BLOCKS) throw badRequest('The image is too large for a checksum')
  const digests = Buffer.alloc(count * zeroBlock.length)
  let done = 0
  const turns = new Turns('checksum')
  const zeroes = new ZeroRuns(disk)
  try {
    for (let start = 0; start < disk.size; start += blockSize) {
      isWanted()
      const pause = turns.step()
      if (pause) await pause
      const length = Math.min(blockSize, disk.size - start)
      if (length === blockSize && (await zeroes.cover(start, length))) {
        done += zeroBlock.copy(digests, done)
        continue
      }
      const block = Buffer.allocUnsafe(length)
      let at = 0
      for await (const piece of disk.read({ start, length })) at += piece.copy(block, at)
      done += (await hash(block)).copy(digests, done)
    }
  } finally {
    await zeroes.close()
  }
  return (await hash(digests)).toString('hex')
}

/** Walks the zero extents of a disk forwards. */
class ZeroRuns {
  readonly #batches: AsyncIterator<readonly { start: number; length: number; zero: boolean }[]>
  #batch: readonly { start: number; length: number; zero: boolean }[] = []
  #index = 0

  constructor(disk: ServedDisk) {
    const range = { start: 0, length: disk.size }
    this.#batches = disk.extents('zero', range)[Symbol.asyncIterator]()
  }

  /** Whether a range, which begins where the last one ended, is zero by the extents. */
  async cover(start: number, length: number): Promise<boolean> {
    let all = true
    for (let at = start; at < start + length; ) {
      const extent = await this.#at(at)
      if (!extent) return false
      all &&= extent.zero
      at = extent.start + extent.length
    }
    return all
  }

  async close(): Promise<void> {
    await this.#batches.return?.()
  }

  async #at(offset: number) {
    for (;;) {
      for (; this.#index < this.#batch.length; this.#index++) {
        const extent = this.#batch[this.#index]
        if (extent.start + extent.length > offset) return extent
      }
      const { value, done } = await this.#batches.next()
      if (done) return undefined
      this.#batch = value
      this.#index = 0
    }
  }
}
