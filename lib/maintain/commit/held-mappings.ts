import { type Layer, type OpenRange, readOpen } from '../../source/layer.ts'
import type { Mapping } from '../../source/source.ts'

/**
 * Guest bytes allocated in the images above a base; past the end of a shorter image they are zero.
 * @param baseSize bytes of the disk of the base
 */
export async function* heldMappings(
  overlays: readonly Layer[],
  baseSize: number,
): AsyncGenerator<Mapping[]> {
  const { size } = overlays[0]
  for await (const batch of readOpen(overlays, { start: 0, length: size })) {
    yield batch.flatMap((item) => (item.kind === 'open' ? growth(item, baseSize) : [item]))
  }
}

/** Past the end of the base nothing is stored; when it has grown it must read as zero there. */
function growth({ start, length }: OpenRange, baseSize: number): Mapping[] {
  const end = start + length
  const from = Math.max(start, baseSize)
  return from < end ? [{ kind: 'hole', start: from, length: end - from }] : []
}
