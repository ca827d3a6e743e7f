import type { CopyResult } from '../backup/types.ts'
import type { DirtyExtent } from '../extents/dirty-extents.ts'
import type { Extent } from '../extents/extent.ts'
import { formatSize } from '../units.ts'

/** Characters gathered for a write. */
const BATCH = 64 * 1024

/** Extents as a JSON array, one to a line, in pieces of text of bounded size. */
export async function* formatExtents(
  extents: AsyncIterable<Extent | DirtyExtent>,
): AsyncGenerator<string> {
  let text = '['
  let separator = ''
  for await (const extent of extents) {
    // The names are printed in this order.
    const { start, length, zero } = extent
    const fields =
      'dirty' in extent
        ? { start, length, dirty: extent.dirty, zero }
        : { start, length, zero, hole: extent.hole }
    text += separator + JSON.stringify(fields)
    separator = ',\n '
    if (text.length >= BATCH) {
      yield text
      text = ''
    }
  }
  yield `${text}]\n`
}

/** Which of a disk's bytes are what in an image of it. */
export function describeDisk({
  virtualSize,
  dataBytes,
  zeroBytes,
  unchangedBytes,
}: Pick<CopyResult, 'virtualSize' | 'dataBytes' | 'zeroBytes' | 'unchangedBytes'>): string {
  const unchanged = unchangedBytes > 0 ? `, ${formatSize(unchangedBytes)} unchanged` : ''
  return (
    `  disk ${formatSize(virtualSize)}: ${formatSize(dataBytes)} data, ` +
    `${formatSize(zeroBytes)} zero${unchanged}`
  )
}

/** The result of a copy, in lines for people. */
export function describeCopy(result: CopyResult): string[] {
  const { dataBytes, fileSize, allocatedBytes, elapsedSeconds, content, verified } = result
  const { notes = [] } = result
  const rate = elapsedSeconds > 0 ? formatSize(Math.round(dataBytes / elapsedSeconds)) : '0 B'
  return [
    `${result.target}: complete`,
    describeDisk(result),
    `  file ${formatSize(fileSize)} (${formatSize(allocatedBytes)} on disk), ` +
      `${elapsedSeconds.toFixed(2)} s, ${rate}/s`,
    ...(verified ? ['  verified: the image is sound and holds what was read'] : []),
    ...(content
      ? [`  ${content.algorithm} of ${formatSize(content.blockSize)} blocks: ${content.checksum}`]
      : []),
    ...(result.manifest ? [`  manifest ${result.manifest}`] : []),
    ...notes.map((note) => `  note: ${note}`),
  ]
}
