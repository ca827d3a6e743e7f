import type { Extent } from '../extents/extent.ts'
import { type ImageFile, readAt } from '../format/read.ts'
import { extentOf, type Mapping } from './source.ts'

/** Unit of zero detection, guest bytes: as in `qemu-img convert -S 4k`. */
const GRANULE = 4096
/** Bytes read at a time. */
const STEP = 2 ** 20
const ZEROES = Buffer.alloc(GRANULE)

/**
 * Reads the data and finds the parts that are all zeroes: those extents read as
 * zero and are not holes. Compressed clusters count as data unread: no program compresses zeroes.
 * @throws BackupError as `readAt`
 */
export async function* detectZeroes(
  files: readonly ImageFile[],
  batches: AsyncIterable<readonly Mapping[]>,
): AsyncGenerator<Extent[]> {
  for await (const batch of batches) {
    for (const mapping of batch) {
      if (mapping.kind !== 'data') {
        yield [extentOf(mapping)]
        continue
      }
      for (let done = 0; done < mapping.length; done += STEP) {
        const length = Math.min(STEP, mapping.length - done)
        const bytes = await readAt(files[mapping.store], mapping.offset + done, length)
        yield granules(bytes, mapping.start + done)
      }
    }
  }
}

/** The extents of guest bytes from `start` on, cut at multiples of the granule. */
function granules(bytes: Buffer, start: number): Extent[] {
  const extents: Extent[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(at + GRANULE - ((start + at) % GRANULE), bytes.length)
    const zero = bytes.compare(ZEROES, 0, end - at, at, end) === 0
    const last = extents[extents.length - 1]
    if (last?.zero === zero) last.length += end - at
    else extents.push({ start: start + at, length: end - at, zero, hole: false })
    at = end
  }
  return extents
}
