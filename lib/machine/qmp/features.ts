import { unsupported } from '../../errors.ts'
import { ask, type Shape } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import { abortsWithThread } from '../threads.ts'

/** What a QEMU can do, by its own description, not by its version: distributions carry patches. */
export interface Features {
  /** A backup job can give up the point in time rather than fail the guest's write. */
  jobBreaksSnapshot: boolean
  /** Granularity of a backup job's copies before writes can be set. */
  jobMinClusterSize: boolean
  /** The same of an explicit filter. */
  filterBreaksSnapshot: boolean
  filterTimeout: boolean
  filterMinClusterSize: boolean
  /**
   * A request to a point in time must not cover more than one cluster of it. Before 8.0 what begins with
   * a cluster that was overwritten and ends with one that was not is answered from the disk as it is
   * now (7.2.22 was seen to do it); before 9.1 QEMU aborts if two requests overlap, as those for block
   * status do with reads. Nothing but the version tells.
   */
  needsSingleClusters: boolean
  /** Disks with iothreads must not be exported, see lib/machine/threads.ts. */
  needsMainThread: boolean
}

interface SchemaEntry {
  name: string
  'arg-type'?: string
  members?: readonly { name?: string; type?: string }[]
  variants?: readonly { case: string; type: string }[]
}

const SCHEMA: Shape = [
  {
    name: 'string',
    'arg-type?': 'string',
    'members?': [{ 'name?': 'string', 'type?': 'string' }],
    'variants?': [{ case: 'string', type: 'string' }],
  },
]

/**
 * Asks for the features.
 * @throws BackupError UNSUPPORTED if it is older than 7.0 and cannot show a point in time
 */
export async function detectFeatures(client: QmpClient, title: string): Promise<Features> {
  const entries = await ask<SchemaEntry[]>(client, 'query-qmp-schema', SCHEMA)
  const byName = new Map(entries.map((entry) => [entry.name, entry]))
  const argumentsOf = (command: string) => byName.get(byName.get(command)?.['arg-type'] ?? '')
  const typeOf = (entry: SchemaEntry | undefined, name: string) =>
    byName.get(entry?.members?.find((member) => member.name === name)?.type ?? '')
  const has = (entry: SchemaEntry | undefined, name: string) =>
    entry?.members?.some((member) => member.name === name) ?? false
  const driver = (name: string) => {
    const type = argumentsOf('blockdev-add')?.variants?.find((variant) => variant.case === name)
    return type && byName.get(type.type)
  }
  const backup = argumentsOf('blockdev-backup')
  const filter = driver('copy-before-write')
  if (!backup || !filter || !driver('snapshot-access') || !byName.has(GRAPH)) {
    throw unsupported(title, 'this QEMU cannot keep and export a point in time; 7.2 or newer can')
  }
  return {
    jobBreaksSnapshot: has(backup, 'on-cbw-error'),
    jobMinClusterSize: has(typeOf(backup, 'x-perf'), 'min-cluster-size'),
    filterBreaksSnapshot: has(filter, 'on-cbw-error'),
    filterTimeout: has(filter, 'cbw-timeout'),
    filterMinClusterSize: has(filter, 'min-cluster-size'),
    needsSingleClusters: !isAtLeast(client, 9, 1),
    needsMainThread: abortsWithThread(versionOf(client)),
  }
}

/** `7.2.22` */
function versionOf({ version }: QmpClient): string {
  const { major = 0, minor = 0, micro = 0 } = version?.qemu ?? {}
  return `${major}.${minor}.${micro}`
}

function isAtLeast({ version }: QmpClient, wanted: number, wantedMinor: number): boolean {
  const { major = 0, minor = 0 } = version?.qemu ?? {}
  return major > wanted || (major === wanted && minor >= wantedMinor)
}

/** The only command of all versions that says which node is above which. */
export const GRAPH = 'x-debug-query-block-graph'
