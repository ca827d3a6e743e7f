import { messageOf } from '../../errors.ts'
import { removeDirectory, unlink } from '../../files.ts'
import { log } from '../../log.ts'
import { ask, type Shape } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import { QmpError } from '../../qmp/qmp-error.ts'
import { begun } from './checkpoints.ts'
import { readNodes } from './graph.ts'
import { hasEnded, listens, serverDirectoryPath, socketIn } from './server-directory.ts'
import { type RunParts, Survey } from './survey.ts'

/** How long QEMU may take to end a job or an export: it finishes the requests under way. */
const PATIENCE_MS = 30_000

/** How a run is removed. */
export interface RemoveOptions {
  /** The guest stood on an input/output error before the run: it is left standing. */
  stoodBefore?: boolean
  /** The backup was stored, so its new bitmaps are valid and become checkpoints. Default: they go. */
  isStored?: boolean
  /** Thaws the guest's file systems, if the run left them frozen. Default: the run did that by itself. */
  thaw?: () => Promise<void>
  /** Paths of temporary images, besides those that QEMU has open. */
  files?: readonly string[]
}

/**
 * Removes everything that a run made in a machine, by what is there now and not by what is
 * remembered; so it can be done again, and for a run whose process is gone. The bitmap of the last
 * backup has gone on recording all the time, so nothing needs to be merged back.
 * @returns notes: what could not be removed
 */
export async function removeRun(
  client: QmpClient,
  run: string,
  { stoodBefore = false, files = [], isStored = false, thaw = async () => {} }: RemoveOptions = {},
): Promise<string[]> {
  const notes: string[] = []
  const attempt = async (what: string, act: () => Promise<unknown>): Promise<void> => {
    try {
      await act()
    } catch (error) {
      log('qmp', () => `run ${run}: cannot remove ${what}: ${messageOf(error)}`)
      // With the monitor everything after it would fail.
      if (!(error instanceof QmpError)) throw error
      notes.push(`${what} was left behind: ${error.why}`)
    }
  }
  try {
    const survey = await Survey.take(client)
    const parts = survey.partsOf(run)
    await resume(client, parts, attempt)
    if (parts.bitmaps.some(({ part }) => part === 'quiesced')) {
      await thaw().catch((error) => {
        notes.push(`the guest's file systems may still be frozen: ${messageOf(error)}`)
      })
    }
    await deleteExports(client, parts, attempt)
    await stopServer(client, parts, survey.foreignExports, notes, attempt)
    await deleteNodes(client, parts, 'acc', attempt)
    for (const { device: path, below, filter } of parts.inserted) {
      const set = { path, property: 'drive', value: below }
      await attempt(`filter ${filter}`, () => client.execute('qom-set', set))
    }
    await cancelJobs(client, parts, attempt)
    const filters = parts.nodes.filter(({ part }) => part === 'cbw')
    await deleteNodes(client, await stillThere(client, parts), 'cbw', attempt)
    if (filters.length > 0 && !stoodBefore) await resumeAfterError(client, attempt)
    // Before the nodes: whose node is left is found again, whose file is left is not.
    for (const note of await unlinkAll([...files, ...parts.files])) notes.push(note)
    await deleteNodes(client, parts, 'tmp', attempt)
    await endBitmaps(client, parts, isStored, attempt)
  } catch (error) {
    notes.push(`the machine could not be cleaned up: ${messageOf(error)}`)
  }
  return [...notes, ...(await removeFiles(run, files))]
}

/**
 * Removes what a run has in file systems: temporary images, and the socket of a server that has ended.
 * @returns notes: what could not be removed
 */
export async function removeFiles(run: string, paths: readonly string[]): Promise<string[]> {
  const notes = await unlinkAll(paths)
  const server = serverDirectoryPath(run)
  if (await hasEnded(socketIn(server))) {
    await removeDirectory(server).catch((error) => {
      notes.push(`${server} was left behind: ${messageOf(error)}`)
    })
  }
  return notes
}

async function unlinkAll(paths: readonly string[]): Promise<string[]> {
  const notes: string[] = []
  for (const path of new Set(paths)) {
    await unlink(path).catch((error) => {
      if (error.code !== 'ENOENT') notes.push(`${path} was left behind: ${messageOf(error)}`)
    })
  }
  return notes
}

type Attempt = (what: string, act: () => Promise<unknown>) => Promise<void>

/** A run that ended while the guest was stopped for the instant lets it go on. */
async function resume(client: QmpClient, { bitmaps }: RunParts, attempt: Attempt): Promise<void> {
  if (!bitmaps.some(({ part }) => part === 'paused')) return
  if ((await statusOf(client)) === 'paused') {
    await attempt('the pause', () => client.execute('cont'))
  }
}

/** With the filter gone, the guest's write is tried again. If the disk itself is at fault, it stops again. */
async function resumeAfterError(client: QmpClient, attempt: Attempt): Promise<void> {
  if ((await statusOf(client)) === 'io-error') {
    await attempt('the pause', () => client.execute('cont'))
  }
}

/** Of the guest: `running`, `paused`, `io-error` … A storage daemon has none. */
export async function statusOf(client: QmpClient): Promise<string | undefined> {
  try {
    return (await ask<{ status: string }>(client, 'query-status', { status: 'string' })).status
  } catch (error) {
    if (error instanceof QmpError && error.qmpClass === 'CommandNotFound') return undefined
    throw error
  }
}

async function deleteExports(client: QmpClient, { exports }: RunParts, attempt: Attempt) {
  if (exports.length === 0) return
  const deleted = client.events({ names: ['BLOCK_EXPORT_DELETED'] })
  const isThere = async (id: string) => {
    const now = await ask<{ id: string }[]>(client, 'query-block-exports', [{ id: 'string' }])
    return now.some((one) => one.id === id)
  }
  for (const id of exports) {
    await attempt(`export ${id}`, async () => {
      if (await isThere(id)) await client.execute('block-export-del', { id, mode: 'hard' })
      while (await isThere(id)) await deleted.next({ timeoutMs: PATIENCE_MS })
    })
  }
  deleted.close()
}

async function stopServer(
  client: QmpClient,
  { server }: RunParts,
  foreignExports: readonly string[],
  notes: string[],
  attempt: Attempt,
): Promise<void> {
  if (server === undefined) return
  // Only then is the server that runs the one of this directory.
  if (await listens(socketIn(server))) {
    if (foreignExports.length > 0) {
      const which = foreignExports.join(', ')
      notes.push(`the NBD server at ${socketIn(server)} goes on: it also has export ${which}`)
      return
    }
    await attempt('the NBD server', () => client.execute('nbd-server-stop'))
  }
}

const JOBS: Shape = [{ id: 'string', status: 'string' }]

async function cancelJobs(client: QmpClient, { jobs }: RunParts, attempt: Attempt): Promise<void> {
  if (jobs.length === 0) return
  const changed = client.events({ names: ['JOB_STATUS_CHANGE'] })
  const statusOfJob = async (id: string) => {
    const now = await ask<{ id: string; status: string }[]>(client, 'query-jobs', JOBS)
    return now.find((one) => one.id === id)?.status
  }
  for (const id of jobs) {
    await attempt(`job ${id}`, async () => {
      // It may end by itself meanwhile.
      if (await statusOfJob(id)) await client.execute('job-cancel', { id }).catch(() => undefined)
      for (let status = await statusOfJob(id); status; status = await statusOfJob(id)) {
        if (status === 'concluded') await client.execute('job-dismiss', { id })
        else await changed.next({ timeoutMs: PATIENCE_MS })
      }
    })
  }
  changed.close()
}

/** The filter of a job has gone with the job. */
async function stillThere(client: QmpClient, parts: RunParts): Promise<RunParts> {
  if (parts.jobs.length === 0) return parts
  const nodes = await readNodes(client)
  const names = new Set(nodes.map((node) => node['node-name']))
  return { ...parts, nodes: parts.nodes.filter(({ name }) => names.has(name)) }
}

/** Each on its own, and what marks last: it must be found again as long as there is anything. */
async function endBitmaps(
  client: QmpClient,
  { bitmaps }: RunParts,
  isStored: boolean,
  attempt: Attempt,
): Promise<void> {
  const all = await readNodes(client)
  const has = (node: string, name: string) =>
    all
      .find((one) => one['node-name'] === node)
      ?.['dirty-bitmaps']?.some((bitmap) => bitmap.name === name)
  for (const { node, name, becomes, marks } of bitmaps) {
    await attempt(`bitmap ${name} of ${node}`, async () => {
      if (isStored && becomes !== undefined) {
        await client.execute('transaction', { actions: begun(node, name, becomes) })
        return
      }
      if (!isStored && marks !== undefined && has(node, marks)) {
        await client.execute('block-dirty-bitmap-remove', { node, name: marks })
      }
      await client.execute('block-dirty-bitmap-remove', { node, name })
    })
  }
}

async function deleteNodes(
  client: QmpClient,
  { nodes }: RunParts,
  wanted: string,
  attempt: Attempt,
): Promise<void> {
  for (const { name, part } of nodes) {
    if (part !== wanted) continue
    await attempt(`node ${name}`, () => client.execute('blockdev-del', { 'node-name': name }))
  }
}
