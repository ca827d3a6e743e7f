import type { BitmapFacts, ImageFacts } from './health.ts'

/** The fields used of a node in the answer to QMP's `query-named-block-nodes`; others are ignored. */
export interface NamedBlockNode {
  'node-name'?: string
  file?: string
  drv?: string
  image?: { 'virtual-size'?: number }
  'dirty-bitmaps'?: readonly NamedBitmap[]
}

/** A bitmap of such a node. Those without a name belong to jobs and filters. */
export interface NamedBitmap {
  name?: string
  granularity: number
  recording: boolean
  persistent: boolean
  inconsistent?: boolean
}

/**
 * Converts what a running QEMU reports about the bitmaps of a chain, for `validateBitmapChain`.
 * @param nodes the answer to `query-named-block-nodes`
 * @param chain names of the chain's format nodes, top first, as the caller knows them
 * @throws Error for a name that no node has
 */
export function factsFromQmp(
  nodes: readonly NamedBlockNode[],
  chain: readonly string[],
): ImageFacts[] {
  const byName = new Map(nodes.map((node) => [node['node-name'], node]))
  return chain.map((name) => {
    const node = byName.get(name)
    if (!node) throw new Error(`${name}: no such node`)
    const bitmaps = (node['dirty-bitmaps'] ?? []).flatMap(factOf)
    const virtualSize = node.image?.['virtual-size']
    const facts = { image: node.file ?? name, bitmaps }
    return virtualSize === undefined ? facts : { ...facts, virtualSize }
  })
}

function factOf({
  name,
  granularity,
  recording,
  persistent,
  inconsistent,
}: NamedBitmap): BitmapFacts[] {
  if (!name) return []
  return [{ name, granularity, recording, persistent, inconsistent: inconsistent ?? false }]
}
