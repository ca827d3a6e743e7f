import { Bits } from '../edit/bits.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import type { FrozenDisk } from '../machine/machine.ts'
import { addDifferences } from '../maintain/diff/differences.ts'
import { withSides } from '../maintain/diff/sides.ts'
import { type Progress, positions } from '../progress.ts'

/** Bytes: the smallest change that an image of ours stores. */
const GRANULARITY = 65536

/**
 * Finds what changed since a backup by comparing the content, where no bitmap tells. The bitmap that began at
 * the instant records meanwhile what comes next.
 * @param backup path of its image
 * @returns contiguous runs from 0 to the size of the disk, each time it is called
 * @throws BackupError BAD_IMAGE, IO, ABORTED …
 */
export async function changesSince(
  { source, open, virtualSize }: FrozenDisk,
  backup: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: Progress) => void },
): Promise<() => AsyncIterable<readonly DirtyRun[]>> {
  const { format, allowPaths, backingFormat, connections, timeoutMs, forceShare } = open
  const network = { connections, timeoutMs, signal }
  const disk = { format, allowPaths, backingFormat, ...network, locked: () => forceShare === true }
  const tell = positions('compare', virtualSize, onProgress)
  const bits = new Bits(virtualSize, GRANULARITY, GRANULARITY)
  await withSides([source, disk], [backup, { format: 'qcow2', signal }], async (sides) => {
    await addDifferences(bits, sides, { signal, onProgress: (position) => tell?.(position) })
  })
  return async function* () {
    yield* bits.runs()
  }
}
