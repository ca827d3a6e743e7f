import { BackupError } from '../../errors.ts'
import { requireShape, type Shape } from '../../qmp/ask.ts'
import { parseMessage, type QmpMessage, QmpProtocolError } from '../../qmp/protocol.ts'
import type { FrozenDisk } from '../machine.ts'
import { RUN_PREFIX } from '../machine.ts'
import type { DomainDisk } from './domain.ts'
import type { Virsh } from './virsh.ts'

/** Granule of libvirt's scratch files, and of QEMU's copies before writes, bytes. */
const GRANULE = 65536

export const TAINT_NOTE =
  'the domain is tainted (custom-monitor) until it is shut off, since discards are set up behind libvirt'

/** A node of QEMU's, as far as this needs it. */
interface BlockNode {
  'node-name': string
  'dirty-bitmaps'?: readonly { name?: string; granularity: number }[]
}

interface BlockDevice {
  qdev?: string
  inserted?: { 'node-name': string; drv: string }
}

const BLOCK_DEVICES: Shape = [
  { 'qdev?': 'string', 'inserted?': { 'node-name': 'string', drv: 'string' } },
]

const BLOCK_NODES: Shape = [
  {
    'node-name': 'string',
    'dirty-bitmaps?': [{ 'name?': 'string', granularity: 'size' }],
  },
]

/** A disk that is to be exported so that what is stored can be discarded. */
export interface DiscardableDisk extends DomainDisk {
  /** The checkpoint whose bitmap is exported with it. */
  since?: string
}

/** An export that takes discards. */
export interface Discardable extends Pick<FrozenDisk, 'open' | 'discardGranule'> {
  exportName: string
}

/**
 * libvirt's exports are read-only. So this adds an export of each disk's point in time that takes discards,
 * on libvirt's NBD server, through QEMU's monitor: what is discarded there QEMU copies no more.
 * @returns by disk
 * @throws BackupError as qmp
 */
export async function exportDiscardable(
  virsh: Virsh,
  uuid: string,
  run: string,
  disks: readonly DiscardableDisk[],
  qemuVersion: string | undefined,
): Promise<Map<string, Discardable>> {
  const devices = await qmp<BlockDevice[]>(virsh, uuid, 'query-block', {}, BLOCK_DEVICES)
  const nodes = await readNodes(virsh, uuid)
  // Before 8.0 a request of several clusters is answered wrongly where the guest writes meanwhile.
  const single = Number.parseInt(qemuVersion ?? '0', 10) < 8 ? { requestSize: GRANULE } : {}
  const found = new Map<string, Discardable>()
  for (const [i, { name: disk, alias, chain, since }] of disks.entries()) {
    const name = nameOf(run, i)
    const device = devices.find(({ qdev }) => qdev?.split('/').includes(alias ?? ''))
    if (device?.inserted?.drv !== 'copy-before-write') {
      throw new BackupError('IO', virsh.title, `the filter above disk ${disk} is not found`)
    }
    const filter = device.inserted['node-name']
    const snapshot = { driver: 'snapshot-access', 'node-name': name, file: filter }
    // Without `unmap` QEMU takes discards, and does nothing.
    await qmp(virsh, uuid, 'blockdev-add', { ...snapshot, discard: 'unmap' })
    const exportName = `${disk}-${run}`
    const options = { id: name, type: 'nbd', 'node-name': name, name: exportName, writable: true }
    const bitmaps: { node: string; name: string }[] = []
    if (since !== undefined) {
      const layers = chain.flatMap(
        ({ node }) => nodes.find((one) => one['node-name'] === node) ?? [],
      )
      bitmaps.push(await copyBitmap(virsh, uuid, layers, since, name))
    }
    await qmp(virsh, uuid, 'block-export-add', { ...options, bitmaps })
    found.set(disk, {
      exportName,
      open: { format: 'raw', ...single, ...(since !== undefined && { bitmap: name }) },
      discardGranule: GRANULE,
    })
  }
  return found
}

/**
 * Copies a bitmap of a disk's backing chain: libvirt's own copy is in use by its export. It has more bits than at the
 * instant, of which the content is as it was.
 */
async function copyBitmap(
  virsh: Virsh,
  uuid: string,
  layers: readonly BlockNode[],
  since: string,
  name: string,
): Promise<{ node: string; name: string }> {
  const holders = layers.flatMap((layer) => {
    const bitmap = layer['dirty-bitmaps']?.find((one) => one.name === since)
    return bitmap ? [{ node: layer['node-name'], granularity: bitmap.granularity }] : []
  })
  if (holders.length === 0) {
    throw new BackupError('BAD_BITMAP', virsh.title, `QEMU has no bitmap ${since}`)
  }
  const [{ granularity }] = holders
  const target = { node: layers[0]['node-name'], name }
  await qmp(virsh, uuid, 'block-dirty-bitmap-add', { ...target, granularity, disabled: true })
  const bitmaps = holders.map(({ node }) => ({ node, name: since }))
  await qmp(virsh, uuid, 'block-dirty-bitmap-merge', {
    node: target.node,
    target: name,
    bitmaps,
  })
  return target
}

/** Ends the exports of a run; its job goes on. What is not there is fine. */
export async function endExports(
  virsh: Virsh,
  uuid: string,
  run: string,
  disks: number,
): Promise<void> {
  for (let i = 0; i < disks; i++) {
    const gone = qmp(virsh, uuid, 'block-export-del', { id: nameOf(run, i), mode: 'hard' })
    await gone.catch(() => {})
  }
}

/** Removes the nodes of a run whose job has ended, and its bitmaps. What is not there is fine. */
export async function removeNodes(
  virsh: Virsh,
  uuid: string,
  run: string,
  disks: number,
): Promise<void> {
  const names = new Set(Array.from({ length: disks }, (_, i) => nameOf(run, i)))
  for (const name of names) {
    await qmp(virsh, uuid, 'blockdev-del', { 'node-name': name }).catch(() => {})
  }
  const nodes = await readNodes(virsh, uuid).catch(() => [])
  for (const node of nodes) {
    for (const { name = '' } of node['dirty-bitmaps'] ?? []) {
      if (!names.has(name)) continue
      const bitmap = { node: node['node-name'], name }
      await qmp(virsh, uuid, 'block-dirty-bitmap-remove', bitmap).catch(() => {})
    }
  }
}

/** Of nodes, exports and bitmaps: at most 31 bytes. */
function nameOf(run: string, disk: number): string {
  return `${RUN_PREFIX}${run}-${disk}`
}

async function readNodes(virsh: Virsh, uuid: string): Promise<BlockNode[]> {
  return await qmp(virsh, uuid, 'query-named-block-nodes', { flat: true }, BLOCK_NODES)
}

/** Runs a command of QEMU's monitor. It taints the domain. */
async function qmp<T>(
  virsh: Virsh,
  uuid: string,
  execute: string,
  args: object = {},
  shape: Shape = {},
): Promise<T> {
  const command = JSON.stringify({ execute, arguments: args })
  const said = await virsh.run(['qemu-monitor-command', `--domain=${uuid}`, command])
  const answer = answerOf(said)
  if (answer.kind === 'return') return requireShape<T>(answer.value, shape, virsh.title, execute)
  const why =
    answer.kind === 'error'
      ? `QEMU refuses ${execute}: ${answer.description}`
      : `QEMU does not answer ${execute}`
  throw new BackupError('IO', virsh.title, why)
}

function answerOf(said: string): QmpMessage | { kind: 'none' } {
  try {
    return parseMessage(said)
  } catch (error) {
    if (error instanceof QmpProtocolError) return { kind: 'none' }
    throw error
  }
}
