import { BackupError } from '../../errors.ts'
import { ask, type Shape } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import type { NamedBlockNode } from '../../source/bitmaps/qmp-facts.ts'
import { GRAPH } from './features.ts'

/** Of nodes below each other. */
const MAX_DEPTH = 2048

/** See NamedBlockNode and BlockNode. */
const NAMED_NODES: Shape = [
  {
    'node-name': 'string',
    drv: 'string',
    'ro?': 'boolean',
    'file?': 'string',
    'image?': {
      'virtual-size?': 'size',
      'format-specific?': { 'type?': 'string', 'data?': { 'compat?': 'string' } },
    },
    'dirty-bitmaps?': [
      {
        'name?': 'string',
        granularity: 'size',
        recording: 'boolean',
        persistent: 'boolean',
        'inconsistent?': 'boolean',
      },
    ],
  },
]

const GRAPH_ANSWER: Shape = {
  nodes: [{ id: 'number', name: 'string', type: 'string' }],
  edges: [{ parent: 'number', child: 'number', name: 'string' }],
}

/** The fields used of a node in `query-named-block-nodes`. */
export interface BlockNode extends NamedBlockNode {
  'node-name': string
  ro?: boolean
  drv: string
  file?: string
  image?: {
    'virtual-size'?: number
    'format-specific'?: { type?: string; data?: { compat?: string } }
  }
}

/** Drivers that pass everything on to the node below them. */
const FILTERS = new Set([
  'throttle',
  'copy-on-read',
  'copy-before-write',
  'preallocate',
  'compress',
  'blkdebug',
  'blklogwrites',
  'mirror_top',
  'commit_top',
])

/** The block nodes of a QEMU, and which is above which. */
export class BlockGraph {
  readonly nodes: readonly BlockNode[]
  readonly #byName: Map<string, BlockNode>
  /** Names of the children by their roles, and of the parents that are nodes, too. */
  readonly #children = new Map<string, Map<string, string>>()
  readonly #parents = new Map<string, string[]>()

  private constructor(nodes: readonly BlockNode[], { nodes: vertices, edges }: GraphAnswer) {
    this.nodes = nodes
    this.#byName = new Map(nodes.map((node) => [node['node-name'], node]))
    const drivers = vertices.filter(({ type }) => type === 'block-driver')
    const names = new Map(drivers.map(({ id, name }) => [id, name]))
    for (const { parent, child, name: role } of edges) {
      const [above, below] = [names.get(parent), names.get(child)]
      if (above === undefined || below === undefined) continue
      const children = this.#children.get(above) ?? new Map<string, string>()
      if (children.has(role)) continue
      this.#children.set(above, children.set(role, below))
      this.#parents.set(below, [...(this.#parents.get(below) ?? []), above])
    }
  }

  static async read(client: QmpClient): Promise<BlockGraph> {
    const [nodes, graph] = await Promise.all([
      readNodes(client),
      ask<GraphAnswer>(client, GRAPH, GRAPH_ANSWER),
    ])
    const read = new BlockGraph(nodes, graph)
    if (read.#isSound()) return read
    const why = `${GRAPH} tells of nodes that are above themselves, or ${MAX_DEPTH} below another`
    throw new BackupError('IO', client.monitor, `gave an answer that is not of QEMU's form: ${why}`)
  }

  /** Nothing goes in circles, or deeper than a call stack. */
  #isSound(): boolean {
    const names = new Set([...this.#children.keys(), ...this.#parents.keys()])
    const waiting = new Map([...names].map((name) => [name, this.parents(name).length]))
    let level = [...names].filter((name) => waiting.get(name) === 0)
    let seen = 0
    for (let depth = 0; level.length > 0 && depth < MAX_DEPTH; depth++) {
      seen += level.length
      const next: string[] = []
      for (const below of level.flatMap((name) => [
        ...(this.#children.get(name)?.values() ?? []),
      ])) {
        const left = (waiting.get(below) ?? 0) - 1
        waiting.set(below, left)
        if (left === 0) next.push(below)
      }
      level = next
    }
    return seen === names.size
  }

  node(name: string): BlockNode | undefined {
    return this.#byName.get(name)
  }

  child(name: string, role: string): BlockNode | undefined {
    return this.node(this.#children.get(name)?.get(role) ?? '')
  }

  /** The nodes above a node. */
  parents(name: string): readonly string[] {
    return this.#parents.get(name) ?? []
  }

  /** The first node from here down that is not a filter. */
  belowFilters(node: BlockNode): BlockNode {
    const { drv, 'node-name': name, image } = node
    const below = this.child(name, 'file') ?? this.child(name, 'backing')
    if (!below || !(FILTERS.has(drv) || drv === 'raw')) return node
    const found = this.belowFilters(below)
    if (FILTERS.has(drv)) return found
    // A raw node that shows all of an image below it, as one that was put there to be exchanged.
    const showsAll = image?.['virtual-size'] === below.image?.['virtual-size']
    return showsAll && this.child(found['node-name'], 'file') ? found : node
  }

  /** The images of a backing chain, without filters, top first. */
  chain(top: BlockNode): BlockNode[] {
    const all = [top]
    for (let at = this.child(top['node-name'], 'backing'); at; ) {
      const image = this.belowFilters(at)
      all.push(image)
      at = this.child(image['node-name'], 'backing')
    }
    return all
  }

  /** Path of the file or device that an image is in, if it is a local one, and named without doubt. */
  pathOf({ 'node-name': name, drv, file }: BlockNode): string | undefined {
    const below = this.child(name, 'file')
    if (below) return this.pathOf(below)
    const local = ['file', 'host_device'].includes(drv)
    // A relative one is relative to a directory that is not known.
    return local && file?.startsWith('/') ? file : undefined
  }
}

/** All nodes of a QEMU. @throws BackupError IO */
export async function readNodes(client: QmpClient): Promise<BlockNode[]> {
  return await ask(client, 'query-named-block-nodes', NAMED_NODES, { flat: true })
}

interface GraphAnswer {
  nodes: readonly { id: number; name: string; type: string }[]
  edges: readonly { parent: number; child: number; name: string }[]
}
