import { basename } from 'node:path'
import { ask, type Shape } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import {
  type BitmapHealth,
  type ImageFacts,
  validateBitmapChain,
} from '../../source/bitmaps/health.ts'
import { factsFromQmp } from '../../source/bitmaps/qmp-facts.ts'
import type { Ability, MachineDisk } from '../machine.ts'
import { ABORTS_WITH_THREAD } from '../threads.ts'
import type { Features } from './features.ts'
import { BlockGraph, type BlockNode } from './graph.ts'
import { isOurs } from './names.ts'
import { hasOwnThread } from './threads.ts'

/** A disk of a QEMU. */
export interface QmpDisk extends MachineDisk {
  /** The node of its topmost image. */
  node: string
  /** The node that the guest's device, or an export, is attached to: a filter above it, or the same. */
  root: string
  /** The guest's device, as qom-set takes it; without: a disk of a storage daemon. */
  device?: string
  /** The nodes of its backing chain, top first. */
  chain: readonly string[]
}

/** The fields used of an entry in `query-block`. */
interface BlockDevice {
  device: string
  qdev?: string
  /** Only of a drive that has a tray. */
  tray_open?: boolean
  inserted?: { 'node-name'?: string; ro: boolean }
}

const BLOCK_DEVICES: Shape = [
  {
    device: 'string',
    'qdev?': 'string',
    'tray_open?': 'boolean',
    'inserted?': { 'node-name?': 'string', ro: 'boolean' },
  },
]

/** The disks of a machine that are written to. */
export async function readDisks(client: QmpClient, features: Features): Promise<QmpDisk[]> {
  const devices = await ask<BlockDevice[]>(client, 'query-block', BLOCK_DEVICES)
  const graph = await BlockGraph.read(client)
  const roots = devices.length > 0 ? devices.flatMap((one) => rootOf(one, graph)) : topNodes(graph)
  const disks = withOwnNames(roots.map((root) => diskOf(root, graph)))
  if (!features.needsMainThread) return disks
  return await Promise.all(disks.map((disk) => judgeThread(disk, client)))
}

async function judgeThread(disk: QmpDisk, client: QmpClient): Promise<QmpDisk> {
  if (disk.device === undefined || !(await hasOwnThread(client, disk.device))) return disk
  return { ...disk, full: { possible: false, reason: ABORTS_WITH_THREAD } }
}

/** Where a disk begins. */
interface Root {
  node: BlockNode
  device?: string
  /** Of the device; default: that of the image's node. */
  name?: string
}

/** Drives of removable media are no disks. */
function rootOf({ device, qdev, tray_open, inserted }: BlockDevice, graph: BlockGraph): Root[] {
  const node = graph.node(inserted?.['node-name'] ?? '')
  if (!qdev || !node || inserted?.ro || tray_open !== undefined) return []
  return [{ node, device: qdev, name: deviceName(qdev) ?? (device || undefined) }]
}

/** The id that the user gave a device; undefined if none. */
function deviceName(qdev: string): string | undefined {
  if (!qdev.startsWith('/')) return qdev
  return /^\/machine\/peripheral\/([^/]+)/.exec(qdev)?.[1]
}

/**
 * A storage daemon has no devices: its disks are what is at the top, above which is nothing but what
 * a run of ours left. Filters over protocol nodes and bare protocol nodes, such as a backup's
 * target, are none, unless they are exported, which makes them raw disks.
 */
function topNodes(graph: BlockGraph): Root[] {
  return graph.nodes.flatMap((node) => {
    const name = node['node-name']
    if (isOurs(name) || node.ro || !graph.parents(name).every(isOurs)) return []
    const image = graph.belowFilters(node)
    return graph.child(image['node-name'], 'file') ? [{ node }] : []
  })
}

function diskOf({ node: root, device, name }: Root, graph: BlockGraph): QmpDisk {
  const node = graph.belowFilters(root)
  const chain = graph.chain(node)
  const path = graph.pathOf(node)
  const chainNames = chain.map((image) => image['node-name'])
  const isImage = graph.child(node['node-name'], 'file') !== undefined
  const cannot = whyNoBitmap(node, isImage)
  return {
    name: name ?? nodeName(node, root, path),
    node: node['node-name'],
    root: undisturbed(root, graph)['node-name'],
    device,
    path,
    format: isImage ? node.drv : 'raw',
    virtualSize: node.image?.['virtual-size'] ?? 0,
    chain: chainNames,
    bitmaps: healthOf(factsFromQmp(graph.nodes, chainNames)),
    full: { possible: true },
    incremental: cannot === undefined ? { possible: true } : { possible: false, reason: cannot },
  }
}

/** The node below the filters of our own runs. */
function undisturbed(root: BlockNode, graph: BlockGraph): BlockNode {
  let at = root
  while (isOurs(at['node-name'])) {
    const below = graph.child(at['node-name'], 'file')
    if (!below) break
    at = below
  }
  return at
}

/** Names that QEMU gave by itself are others in every run. */
function nodeName(node: BlockNode, root: BlockNode, path: string | undefined): string {
  const given = [node, root].map((one) => one['node-name']).find((name) => !name.startsWith('#'))
  return given ?? (path ? basename(path) : node['node-name'])
}

/** Two disks of one name get those of their nodes. */
function withOwnNames(disks: readonly QmpDisk[]): QmpDisk[] {
  return disks.map((disk) => {
    const isUnique = disks.every((other) => other === disk || other.name !== disk.name)
    return isUnique ? disk : { ...disk, name: disk.node }
  })
}

function whyNoBitmap({ drv, image }: BlockNode, isImage: boolean): string | undefined {
  if (!isImage || drv === 'raw') return 'a raw disk cannot hold a bitmap'
  if (drv !== 'qcow2') return `an image of format ${drv} cannot hold a bitmap`
  const { compat } = image?.['format-specific']?.data ?? {}
  return compat === '0.10' ? 'a qcow2 image of version 2 cannot hold a bitmap' : undefined
}

/** As `validateBitmapChain`, without bitmaps of our own runs, and with what a merge needs. */
function healthOf(all: readonly ImageFacts[]): BitmapHealth[] {
  const chain = all.map((facts) => ({
    ...facts,
    bitmaps: facts.bitmaps.filter(({ name }) => !isOurs(name)),
  }))
  return validateBitmapChain(chain).map((health) => {
    const size = chain[0].virtualSize
    const other = chain.find(({ bitmaps, virtualSize }) => {
      return virtualSize !== size && bitmaps.some(({ name }) => name === health.name)
    })
    if (!other) return health
    const why = `its disk has ${other.virtualSize} bytes and the topmost ${size}`
    const reason = `${other.image}: ${why}: QEMU does not merge bitmaps of different sizes`
    return { ...health, valid: false, reasons: [...health.reasons, reason] }
  })
}

/** Whether something can be done, as an error message goes on about it. */
export function whyNot({ possible, reason = 'is not possible' }: Ability): string | undefined {
  return possible ? undefined : reason
}
