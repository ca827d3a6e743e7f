import type { Range } from '../extents/range-set.ts'
import { planFresh, planOverlay } from '../plan/plan.ts'
import { areaOf, COLUMNS, OWN_ROWS } from '../plan/rows.ts'
import type { HashedLayer } from './spec.ts'

/** Some of a plan as it is handed over. */
export interface PlanPart {
  /** Of the disk. */
  area: Range
  /** For that area, and those of layers up to its end at least. */
  rows: Float64Array
}

/** Adds to a plan what layers hold themselves, so that their hashes can be taken. */
export async function* withLayers(
  plan: AsyncIterable<Float64Array>,
  layers: readonly HashedLayer[] = [],
): AsyncGenerator<PlanPart> {
  const all = layers.map((layer) => new LayerRows(layer))
  try {
    for await (const rows of plan) {
      const area = areaOf(rows)
      const parts = [rows]
      for (const layer of all) parts.push(...(await layer.upTo(area.start + area.length)))
      yield { area, rows: joined(parts) }
    }
  } finally {
    for (const layer of all) await layer.close()
  }
}

class LayerRows {
  readonly #store: number
  readonly #plan: AsyncGenerator<Float64Array>
  #end = 0

  constructor({ store, own, hasBacking }: HashedLayer) {
    this.#store = store
    // As the hash of the image alone is taken. Its clusters are whole, whatever their size.
    this.#plan = hasBacking ? planOverlay(own, 1, own.size) : planFresh(own)
  }

  /** The batches that follow, until they reach `end`. */
  async upTo(end: number): Promise<Float64Array[]> {
    const batches: Float64Array[] = []
    while (this.#end < end) {
      const { value, done } = await this.#plan.next()
      if (done) throw new Error(`the plan of a layer ends at ${this.#end}, before ${end}`)
      for (let at = 0; at < value.length; at += COLUMNS) {
        value[at] += OWN_ROWS
        value[at + 3] = this.#store
      }
      const area = areaOf(value)
      this.#end = area.start + area.length
      batches.push(value)
    }
    return batches
  }

  async close(): Promise<void> {
    await this.#plan.return(undefined)
  }
}

function joined(parts: readonly Float64Array[]): Float64Array {
  if (parts.length === 1) return parts[0]
  const rows = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    rows.set(part, at)
    at += part.length
  }
  return rows
}
