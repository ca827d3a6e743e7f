import { messageOf, throwIfAborted } from '../../errors.ts'
import { log } from '../../log.ts'
import type { QmpClient } from '../../qmp/client.ts'
import type { FreezeOptions } from '../machine.ts'
import { type Action, GRANULARITY, MARK, transact } from './checkpoints.ts'
import type { Features } from './features.ts'
import { nameOf, newBitmap } from './names.ts'
import type { FreezePlan, PlannedDisk } from './plan-freeze.ts'
import { statusOf } from './remove-run.ts'

/** How long a guest that was stopped may take to go on: QEMU may have to flush slow disks before. */
const CONT_TIMEOUT_MS = 600_000

/**
 * Makes the instant: from here on the filters keep what the guest overwrites, the new bitmaps record,
 * and the frozen ones hold the changes up to it. The bitmaps of the last backup go on recording, so
 * that nothing is lost whatever becomes of this run. The temporary images' nodes are there already.
 *
 * With jobs it is one transaction. Filters are put above the disks one by one, so the guest is stopped
 * for that if there are several disks; of one disk the instant is when its filter is there, and the
 * bitmaps around it may only hold more: the new one begins before, the frozen one ends after.
 * @returns when it was
 * @throws BackupError; the caller removes the run then
 */
export async function makeInstant(
  client: QmpClient,
  plan: FreezePlan,
  options: FreezeOptions,
  features: Features,
  run: string,
): Promise<Date> {
  const { disks } = plan
  const filters = disks.filter(({ recipe }) => recipe === 'filter')
  if (filters.length === 0) {
    await transact(client, [
      ...begin(disks, run),
      ...jobs(disks, options, features, run),
      ...frozen(disks, run),
    ])
    return new Date()
  }
  const make = async () => {
    await transact(client, begin(disks, run))
    for (const disk of filters) await insertFilter(client, disk, options, features, run)
    const time = new Date()
    await transact(client, [...jobs(disks, options, features, run), ...frozen(disks, run)])
    return time
  }
  return disks.length > 1 ? await whileStopped(client, disks[0], run, make) : await make()
}

/** The bitmaps that record from now on. */
function begin(disks: readonly PlannedDisk[], run: string): Action[] {
  return disks.flatMap(({ checkpoint, disk: { node } }) => {
    if (checkpoint === undefined) return []
    const bitmap = { node, name: newBitmap(run, checkpoint) }
    const data = { ...bitmap, granularity: GRANULARITY, persistent: true }
    return [{ type: 'block-dirty-bitmap-add', data }]
  })
}

function jobs(
  disks: readonly PlannedDisk[],
  { onCbwError = 'break-snapshot', minClusterSize }: FreezeOptions,
  { jobBreaksSnapshot }: Features,
  run: string,
): Action[] {
  return disks.flatMap(({ disk: { node }, index, recipe }) => {
    if (recipe !== 'job') return []
    const data = {
      'job-id': nameOf(run, 'job', index),
      device: node,
      target: nameOf(run, 'tmp', index),
      sync: 'none',
      'filter-node-name': nameOf(run, 'cbw', index),
      ...(jobBreaksSnapshot && { 'on-cbw-error': onCbwError }),
      ...(minClusterSize !== undefined && { 'x-perf': { 'min-cluster-size': minClusterSize } }),
    }
    return [{ type: 'blockdev-backup', data }]
  })
}

/** The changes since the last backup, merged from all images of the chain. */
function frozen(disks: readonly PlannedDisk[], run: string): Action[] {
  return disks.flatMap(({ disk: { node }, since, sinceNodes, granularity }) => {
    if (since === undefined) return []
    const name = nameOf(run, 'frozen')
    const bitmaps = sinceNodes.map((one) => ({ node: one, name: since }))
    return [
      { type: 'block-dirty-bitmap-add', data: { node, name, granularity, disabled: true } },
      { type: 'block-dirty-bitmap-merge', data: { node, target: name, bitmaps } },
    ]
  })
}

async function insertFilter(
  client: QmpClient,
  { disk, index }: PlannedDisk,
  { cbwTimeout, minClusterSize, onCbwError = 'break-snapshot' }: FreezeOptions,
  { filterBreaksSnapshot }: Features,
  run: string,
): Promise<void> {
  const name = nameOf(run, 'cbw', index)
  await client.execute('blockdev-add', {
    driver: 'copy-before-write',
    'node-name': name,
    file: disk.root,
    target: nameOf(run, 'tmp', index),
    ...(filterBreaksSnapshot && { 'on-cbw-error': onCbwError }),
    ...(cbwTimeout !== undefined && { 'cbw-timeout': cbwTimeout }),
    ...(minClusterSize !== undefined && { 'min-cluster-size': minClusterSize }),
  })
  await client.execute('qom-set', { path: disk.device, property: 'drive', value: name })
}

/** Stops a guest that runs, and lets it go on. Who cleans up after us sees by a bitmap that it is to. */
async function whileStopped<T>(
  client: QmpClient,
  { disk }: PlannedDisk,
  run: string,
  body: () => Promise<T>,
): Promise<T> {
  if ((await statusOf(client)) !== 'running') return await body()
  const bitmap = { node: disk.node, name: nameOf(run, 'paused') }
  await client.execute('block-dirty-bitmap-add', { ...bitmap, granularity: MARK, disabled: true })
  const goOn = () => client.execute('cont', undefined, { timeoutMs: CONT_TIMEOUT_MS })
  let value: T
  try {
    await client.execute('stop')
    value = await body()
  } catch (error) {
    // Also where `stop` took too long: it is carried out yet, and this after it.
    await goOn().catch((cause) => log('qmp', () => `cont: ${messageOf(cause)}`))
    throw error
  }
  await goOn()
  await client.execute('block-dirty-bitmap-remove', bitmap)
  return value
}

/** Opens the temporary images in QEMU. */
export async function openTemporaries(
  client: QmpClient,
  plan: FreezePlan,
  paths: readonly string[],
  run: string,
  signal?: AbortSignal,
): Promise<void> {
  for (const { index } of plan.disks) {
    throwIfAborted(signal, paths[index])
    const node = { driver: 'file', 'node-name': nameOf(run, 'tmp', index), discard: 'unmap' }
    await client.execute('blockdev-add', { ...node, filename: paths[index] })
  }
}

/** Exports the point in time of each disk, with its frozen bitmap. */
export async function exportDisks(
  client: QmpClient,
  { disks }: FreezePlan,
  run: string,
): Promise<void> {
  for (const { disk, index, since } of disks) {
    const node = nameOf(run, 'acc', index)
    const below = { file: nameOf(run, 'cbw', index), discard: 'unmap' }
    await client.execute('blockdev-add', { driver: 'snapshot-access', 'node-name': node, ...below })
    const bitmaps = since === undefined ? [] : [{ node: disk.node, name: nameOf(run, 'frozen') }]
    await client.execute('block-export-add', {
      type: 'nbd',
      id: nameOf(run, 'exp', index),
      'node-name': node,
      name: nameOf(run, 'exp', index),
      writable: true,
      ...(bitmaps.length > 0 && { bitmaps }),
    })
  }
}
