import { argumentError, BackupError, unsupported } from '../../errors.ts'
import { quoted } from '../../text.ts'
import type { FreezeDisk, FreezeOptions } from '../machine.ts'
import { type QmpDisk, whyNot } from './disks.ts'
import type { Features } from './features.ts'

/** The cluster in which QEMU copies before a write into a raw file, bytes. */
const COPY_CLUSTER = 65536

/** The longest `cbw-timeout` that fits into 32 bits of nanoseconds, seconds. */
const MAX_SHORT_TIMEOUT = 4

/** A disk that is to be frozen, and how. */
export interface PlannedDisk extends FreezeDisk {
  disk: QmpDisk
  /** In the order asked for. */
  index: number
  /** How the filter gets above it. */
  recipe: 'job' | 'filter'
  /** Nodes of its backing chain that have the bitmap `since`, top first. */
  sinceNodes: readonly string[]
  /** Of that bitmap, bytes. */
  granularity: number
}

/** All disks of a point in time. */
export interface FreezePlan {
  disks: readonly PlannedDisk[]
  /** In what the client may discard, bytes. */
  discardGranule: number
  notes: string[]
}

/**
 * Decides how disks are frozen, by what the QEMU can do.
 * @throws BackupError USAGE, BAD_BITMAP, UNSUPPORTED
 */
export function planFreeze(
  options: FreezeOptions,
  disks: readonly QmpDisk[],
  features: Features,
  title: string,
): FreezePlan {
  const { minClusterSize = 0, recipe } = options
  if (options.disks.length === 0) throw argumentError('disks', 'no disk is named')
  requireSupported(options, features, title)
  const planned = options.disks.map((asked, index) => {
    const disk = disks.find(({ name }) => name === asked.name)
    if (!disk) {
      const names = disks.map(({ name }) => quoted(name)).join(', ') || 'no disk'
      throw argumentError('disks', `${title} has no disk ${quoted(asked.name)}; it has ${names}`)
    }
    const why = whyNot(disk.full)
    if (why !== undefined) throw unsupported(`disk ${disk.name}`, why)
    const { checkpoint, since } = asked
    if (checkpoint !== undefined) requireRoomFor(checkpoint, disk)
    const { nodes, granularity } = since === undefined ? NOTHING : sinceNodes(since, disk)
    const how = recipe ?? recipeFor(disk, options, features)
    if (how === 'filter' && disk.device === undefined) {
      const why = 'the filter recipe exchanges the node of a device, and this one has no devices'
      throw unsupported(title, why)
    }
    return { ...asked, disk, index, recipe: how, sinceNodes: nodes, granularity }
  })
  return {
    disks: planned,
    discardGranule: Math.max(COPY_CLUSTER, minClusterSize),
    notes: notesFor(planned, options, features),
  }
}

const NOTHING = { nodes: [], granularity: COPY_CLUSTER }

/** Options that a QEMU lacks are refused, not ignored. */
function requireSupported(options: FreezeOptions, features: Features, title: string): void {
  const { cbwTimeout, minClusterSize, onCbwError, recipe } = options
  if (cbwTimeout !== undefined) {
    if (recipe === 'job') throw argumentError('cbwTimeout', 'only the filter recipe has it')
    if (!features.filterTimeout) throw unsupported(title, 'this QEMU has no cbw-timeout')
    // Both came within one release, and nothing else tells.
    if (cbwTimeout > MAX_SHORT_TIMEOUT && !features.filterMinClusterSize) {
      const why = `this QEMU counts cbw-timeout in 32 bits: at most ${MAX_SHORT_TIMEOUT} seconds`
      throw unsupported(title, why)
    }
  }
  if (minClusterSize !== undefined) {
    const has = recipe === 'filter' ? features.filterMinClusterSize : features.jobMinClusterSize
    if (!has) throw unsupported(title, 'this QEMU has no min-cluster-size')
  }
  if (onCbwError === 'break-snapshot' && recipe === 'job' && !features.jobBreaksSnapshot) {
    const why = 'a backup job of this QEMU cannot break the snapshot; the filter recipe can'
    throw unsupported(title, why)
  }
}

/** The guest's safety goes first: the filter where only it can break the snapshot. */
function recipeFor(disk: QmpDisk, options: FreezeOptions, features: Features): 'job' | 'filter' {
  const { cbwTimeout, onCbwError = 'break-snapshot' } = options
  if (cbwTimeout !== undefined) return 'filter'
  if (onCbwError === 'break-guest-write' || features.jobBreaksSnapshot) return 'job'
  return disk.device !== undefined && features.filterBreaksSnapshot ? 'filter' : 'job'
}

function requireRoomFor(checkpoint: string, disk: QmpDisk): void {
  const why = whyNot(disk.incremental)
  if (why !== undefined) throw new BackupError('BAD_BITMAP', disk.name, why)
  const taken = disk.bitmaps.find(({ name }) => name === checkpoint)
  if (!taken?.images[0].present) return
  throw new BackupError('BAD_BITMAP', disk.name, `has a bitmap ${quoted(checkpoint)} already`)
}

/** @throws BackupError BAD_BITMAP if the bitmap does not record all changes */
function sinceNodes(since: string, disk: QmpDisk): { nodes: string[]; granularity: number } {
  const health = disk.bitmaps.find(({ name }) => name === since)
  if (!health) throw new BackupError('BAD_BITMAP', disk.name, `has no bitmap ${quoted(since)}`)
  if (!health.valid) throw new BackupError('BAD_BITMAP', disk.name, health.reasons.join('; '))
  const nodes = disk.chain.filter((_, i) => health.images[i].present)
  return { nodes, granularity: health.images[0].granularity ?? COPY_CLUSTER }
}

function notesFor(
  disks: readonly PlannedDisk[],
  { onCbwError = 'break-snapshot' }: FreezeOptions,
  { jobBreaksSnapshot }: Features,
): string[] {
  if (onCbwError !== 'break-snapshot' || jobBreaksSnapshot) return []
  const unsafe = disks.filter(({ recipe }) => recipe === 'job').map(({ name }) => quoted(name))
  if (unsafe.length === 0) return []
  const which = `disk${unsafe.length > 1 ? 's' : ''} ${unsafe.join(', ')}`
  return [
    `this QEMU cannot give up the point in time of ${which} when the temporary image cannot be ` +
      'written to: the write of the guest fails then',
  ]
}
