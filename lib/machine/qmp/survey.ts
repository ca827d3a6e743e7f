import { basename, dirname } from 'node:path'
import { lstat, readdir } from '../../files.ts'
import { ask, type Shape } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import type { Leftover } from '../machine.ts'
import { BlockGraph } from './graph.ts'
import { isOurs, type OwnName, type Part, readName } from './names.ts'
import { serverDirectoryPath } from './server-directory.ts'

/** What a run made in a machine, and is there now. */
export interface RunParts {
  run: string
  jobs: string[]
  exports: string[]
  nodes: { name: string; part: Part }[]
  /** Filters that a device was attached to, and what it was attached to before. */
  inserted: { device: string; filter: string; below: string }[]
  bitmaps: (OwnName & { node: string; name: string })[]
  /** Paths of temporary images. */
  files: string[]
  /** Directory of the NBD server's socket. */
  server?: string
}

const EXPORTS: Shape = [{ id: 'string', type: 'string' }]

/** The fields used of an entry in `query-block`. */
interface BlockDevice {
  qdev?: string
  inserted?: { 'node-name'?: string }
}

const BLOCK_DEVICES: Shape = [{ 'qdev?': 'string', 'inserted?': { 'node-name?': 'string' } }]

/** What runs made. */
export class Survey {
  readonly runs: readonly RunParts[]
  /** Exports of an NBD server that are not ours. */
  readonly foreignExports: readonly string[]

  private constructor(runs: readonly RunParts[], foreignExports: readonly string[]) {
    this.runs = runs
    this.foreignExports = foreignExports
  }

  /** @param directories where temporary images may lie, besides those that QEMU has open */
  static async take(client: QmpClient, directories: readonly string[] = []): Promise<Survey> {
    const [jobs, exports, devices, graph] = await Promise.all([
      ask<{ id: string }[]>(client, 'query-jobs', [{ id: 'string' }]),
      ask<{ id: string; type: string }[]>(client, 'query-block-exports', EXPORTS),
      ask<BlockDevice[]>(client, 'query-block', BLOCK_DEVICES),
      BlockGraph.read(client),
    ])
    const runs = new Map<string, RunParts>()
    const partsOf = (run: string) => {
      const parts = runs.get(run) ?? emptyRun(run)
      runs.set(run, parts)
      return parts
    }
    const ours = (name: string | undefined, take: (parts: RunParts, own: OwnName) => void) => {
      const own = readName(name)
      if (own) take(partsOf(own.run), own)
    }
    for (const { id } of jobs) ours(id, (parts) => parts.jobs.push(id))
    for (const { id } of exports) ours(id, (parts) => parts.exports.push(id))
    for (const node of graph.nodes) {
      const name = node['node-name']
      ours(name, (parts, { run, part }) => {
        if (part !== undefined) parts.nodes.push({ name, part })
        const path = part === 'tmp' ? graph.pathOf(node) : undefined
        // Only a file that we named, whatever somebody else gave a node of ours.
        if (path !== undefined && readName(basename(path))?.run === run) parts.files.push(path)
      })
      for (const { name: bitmap = '' } of node['dirty-bitmaps'] ?? []) {
        ours(bitmap, ({ bitmaps }, own) => bitmaps.push({ ...own, node: name, name: bitmap }))
      }
    }
    for (const { qdev, inserted } of devices) {
      const filter = inserted?.['node-name'] ?? ''
      const below = graph.child(filter, 'file')?.['node-name']
      if (!qdev || below === undefined) continue
      ours(filter, (parts) => {
        // The filter of a job goes with the job.
        if (parts.jobs.includes(filter.replace('-cbw', '-job'))) return
        parts.inserted.push({ device: qdev, filter, below })
      })
    }
    const all = [...directories, ...directoriesOf(runs.values())]
    for (const path of await filesIn(all)) {
      ours(basename(path), ({ files }) => {
        if (!files.includes(path)) files.push(path)
      })
    }
    for (const parts of runs.values()) {
      const directory = serverDirectoryPath(parts.run)
      if (await exists(directory)) parts.server = directory
    }
    const foreign = exports.filter(({ id, type }) => type === 'nbd' && !isOurs(id))
    return new Survey(
      [...runs.values()],
      foreign.map(({ id }) => id),
    )
  }

  /** What a run made; of one that made nothing, nothing. */
  partsOf(run: string): RunParts {
    return this.runs.find((parts) => parts.run === run) ?? emptyRun(run)
  }
}

/** A run's parts, as they are told to the user. */
export function leftoversOf(
  { run, exports, jobs, nodes, bitmaps, files, server }: RunParts,
  diskOf: (node: string) => string | undefined,
): Leftover[] {
  const of = (kind: Leftover['kind']) => (name: string) => ({ kind, name, run })
  return [
    ...exports.map(of('export')),
    ...(server === undefined ? [] : [of('server')(server)]),
    ...jobs.map(of('job')),
    ...nodes.map(({ name }) => of('node')(name)),
    ...bitmaps.map(({ node, name }) => {
      const disk = diskOf(node)
      return { ...of('bitmap')(name), ...(disk !== undefined && { disk }) }
    }),
    ...files.map(of('file')),
  ]
}

function emptyRun(run: string): RunParts {
  return { run, jobs: [], exports: [], nodes: [], inserted: [], bitmaps: [], files: [] }
}

function directoriesOf(runs: Iterable<RunParts>): string[] {
  return [...runs].flatMap(({ files }) => files.map((path) => dirname(path)))
}

async function filesIn(directories: readonly string[]): Promise<string[]> {
  const all: string[] = []
  for (const directory of new Set(directories)) {
    // One that is gone or closed to us holds nothing that we could remove.
    const names = await readdir(directory).catch(() => [])
    const ours = names.filter((name) => readName(name)?.part === 'tmp' && name.endsWith('.raw'))
    all.push(...ours.map((name) => `${directory}/${name}`))
  }
  return all
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  )
}
