import type { Range } from '../extents/range-set.ts'
import type { Mapping } from './source.ts'

/** A run that the layers asked so far leave to the next one below. */
export interface OpenRange {
  kind: 'open'
  start: number
  length: number
}

/** A stretch of the guest, `start` to `end`, about which a layer can answer at once. */
export interface Window {
  readonly start: number
  readonly end: number
  /** Appends the layer's mappings of the guest bytes `from` to `to`, which lie in the window. */
  fill(from: number, to: number, out: (Mapping | OpenRange)[]): void
}

/** One image of a chain with its files. */
export interface Layer {
  /** Virtual size, bytes. Beyond it the layer, and with it all below, reads as zero. */
  readonly size: number
  /** The window that holds the guest offset `at`, which is below `size`. */
  window(at: number): Promise<Window>
}

/**
 * Mappings per batch, about. Enough that the cost of a batch is not seen beside that of its mappings,
 * few enough that a batch stays below a megabyte.
 */
export const BATCH = 4096

/**
 * Reads a chain, top first: every layer answers for the ranges that the ones above it leave open. Each is a
 * stage that a stream of batches flows through, so memory is bounded by the number of layers, and
 * a table that is never asked for is never read.
 * @param range default: all
 */
export async function* readLayers(
  layers: readonly Layer[],
  range: Range = { start: 0, length: layers[0].size },
): AsyncGenerator<readonly Mapping[]> {
  for await (const batch of readOpen(layers, range)) yield batch.map(closed)
}

/** Like `readLayers`, for some layers of a chain, which leave unallocated ranges to the ones below. */
export async function* readOpen(
  layers: readonly Layer[],
  range: Range,
): AsyncGenerator<readonly (Mapping | OpenRange)[]> {
  if (range.length === 0) return
  const all: AsyncIterable<(Mapping | OpenRange)[]> = start([{ kind: 'open', ...range }])
  yield* layers.reduce(fillFrom, all)
}

async function* start(batch: (Mapping | OpenRange)[]): AsyncGenerator<(Mapping | OpenRange)[]> {
  yield batch
}

/** Ranges that no layer holds are holes. */
function closed(item: Mapping | OpenRange): Mapping {
  return item.kind === 'open' ? { ...item, kind: 'hole' } : item
}

/** Fills in the open ranges of `batches` from one layer. */
async function* fillFrom(
  batches: AsyncIterable<(Mapping | OpenRange)[]>,
  layer: Layer,
): AsyncGenerator<(Mapping | OpenRange)[]> {
  let window: Window | undefined
  for await (const batch of batches) {
    let out: (Mapping | OpenRange)[] = []
    for (const item of batch) {
      if (item.kind !== 'open') {
        out.push(item)
        continue
      }
      const end = item.start + item.length
      const known = Math.min(end, layer.size)
      for (let at = item.start; at < known; ) {
        if (!window || at < window.start || at >= window.end) window = await layer.window(at)
        const to = Math.min(known, window.end)
        window.fill(at, to, out)
        at = to
        if (out.length >= BATCH) {
          yield out
          out = []
        }
      }
      const beyond = Math.max(item.start, known)
      if (beyond < end) out.push({ kind: 'hole', start: beyond, length: end - beyond })
    }
    if (out.length > 0) yield out
  }
}
