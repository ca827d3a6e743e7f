import { isBackupError } from '../../errors.ts'
import type { Range } from '../../extents/range-set.ts'
import { DIRTY_FLAG, statusAnswers } from '../../nbd/block-status.ts'
import { isRefusedStatus, NbdConnection } from '../../nbd/connection.ts'
import { openServer } from '../../nbd/export.ts'
import type { FrozenDisk } from '../machine.ts'

/** How many places are asked for at most. */
const MAX_PROBES = 64

/** What is asked for in each, bytes: no place that can be discarded is smaller. */
const PROBE = 65536

/**
 * Whether QEMU still has the point in time of a disk. When it has given it up, every question about it is
 * refused with the error that ranges get that were discarded, and nothing else tells. So this asks for
 * what is copied last as a rule, and discarded last: the end of the disk, or of the changes.
 * @returns false if none of it can be read
 * @throws BackupError if the server cannot be asked
 */
export async function canBeRead(disk: FrozenDisk): Promise<boolean> {
  const server = await openServer(disk.source, disk.open)
  const places = lastPlaces(await wantedRanges(disk))
  if (places.length === 0) return true
  const connection = await NbdConnection.open(server, ['base:allocation'])
  try {
    for (const start of places) {
      const length = Math.min(PROBE, disk.virtualSize - start)
      if (await isReadable(connection, start, length)) return true
    }
    return false
  } finally {
    connection.close()
  }
}

async function isReadable(connection: NbdConnection, start: number, length: number) {
  try {
    await connection.status(start, length)
    return true
  } catch (error) {
    const isRefused = isRefusedStatus(error) && isBackupError(error) && error.errno === 'EINVAL'
    if (!isRefused) throw error
    return false
  }
}

/** What is copied: a bitmap answers whatever has become of the data. */
async function wantedRanges({ source, open, virtualSize }: FrozenDisk): Promise<Range[]> {
  const { bitmap } = open
  if (bitmap === undefined) return [{ start: 0, length: virtualSize }]
  const server = await openServer(source, open)
  const connection = await NbdConnection.open(server, [`qemu:dirty-bitmap:${bitmap}`])
  try {
    const asked = { path: server.displayUri, blockMin: connection.info.blockMin }
    const ask = (start: number, length: number) => connection.status(start, length)
    const dirty: Range[] = []
    for await (const { start, contexts } of statusAnswers(asked, ask, 0, virtualSize)) {
      let at = start
      for (let i = 0; i < contexts[0].length; i += 2) {
        const length = contexts[0][i]
        if (contexts[0][i + 1] & DIRTY_FLAG) dirty.push({ start: at, length })
        at += length
      }
      dirty.splice(0, dirty.length - MAX_PROBES)
    }
    return dirty
  } finally {
    connection.close()
  }
}

/** Offsets to be asked for, from the end on. */
function lastPlaces(ranges: readonly Range[]): number[] {
  const places: number[] = []
  for (const { start, length } of [...ranges].reverse()) {
    const last = start + Math.floor((length - 1) / PROBE) * PROBE
    for (let at = last; at >= start && places.length < MAX_PROBES; at -= PROBE) places.push(at)
  }
  return places
}
