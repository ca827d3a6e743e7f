import { BackupError } from '../../errors.ts'
import { whyOf } from '../../imageio/client/failure.ts'
import { type ImageClientOptions, openImage } from '../../imageio/client/image.ts'
import { ImageWrites } from '../../imageio/client/writes.ts'
import { IN_PLACE } from './in-place.ts'
import type { Target, TargetWriter } from './target.ts'

/** Writes for each connection: one is on its way while the next is made. Each has a copy of its bytes. */
const WRITES_PER_CONNECTION = 2

/**
 * Opens an image of an imageio server to be overwritten. Naming it is a request to overwrite it.
 * @throws BackupError USAGE, IO, BAD_TARGET if the ticket is for reading only, ABORTED
 */
export async function openImageioTarget(url: string, options: ImageClientOptions): Promise<Target> {
  const image = await openImage(url, 'write', options)
  const { address, abilities, size, connections, timeoutMs } = image
  const path = address.displayUrl
  if (abilities.canWrite === false) {
    await image.close()
    const why = 'the ticket is for reading only; start a transfer for an upload'
    throw new BackupError('BAD_TARGET', path, why)
  }
  const writes = new ImageWrites(image)
  let end = 0
  let written = 0
  /** Does something, of which a failure is told in words. */
  const told = async (work: Promise<void>) => {
    try {
      await work
    } catch (error) {
      throw new Error(whyOf(error, address.path, timeoutMs), { cause: error })
    }
  }
  const store: TargetWriter = {
    kind: 'writer',
    canZero: writes.canZero,
    requests: connections.all.length * WRITES_PER_CONNECTION,
    async write(offset, bytes, signal) {
      await told(writes.write(offset, bytes, signal))
      end = Math.max(end, offset + bytes.length)
      written += bytes.length
    },
    async zero(offset, length, signal) {
      await told(writes.zero(offset, length, signal))
      end = Math.max(end, offset + length)
    },
    flush: (signal) => told(writes.flush(signal)),
  }
  return {
    ...IN_PLACE,
    kind: 'imageio',
    path,
    store,
    inPlace: true,
    capacity: size,
    unfinished: 'what the server has now is incomplete; do not use it',
    async sizes() {
      return { fileSize: size ?? end, allocatedBytes: written }
    },
    located: async () => path,
    // The copy ends with a flush.
    async sync() {},
    discard: () => image.close(),
  }
}
