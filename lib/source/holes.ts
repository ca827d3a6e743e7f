import { type HostWindow, hostWindow } from '../image/data-map.ts'
import type { OpenFile } from '../image/file.ts'
import { BATCH } from './layer.ts'
import type { Mapping } from './source.ts'

/** How far apart two mappings may lie in a file and still count as read in order. */
const NEAR = 2 ** 20

/**
 * Whether a qcow2 file may hold data clusters that were never written: it was preallocated, or has
 * large clusters with little in them. QEMU's rule, by which it decides whether to look for holes,
 * but for the clusters that are not in use: those only make us look more often.
 * @param clusterSize of the image, bytes
 */
export function looksPreallocated(file: OpenFile, clusterSize: number): boolean {
  const real = Math.floor(file.allocatedBytes / clusterSize)
  return Math.floor(file.size / clusterSize) >= Math.max(Math.floor((real * 10) / 9), real + 2)
}

/**
 * Turns data that lies in holes of a file into zeroes, which then need not be read.
 * @param sparse the files to look into, by their index
 */
export async function* splitHoles(
  batches: AsyncIterable<readonly Mapping[]>,
  sparse: ReadonlyMap<number, OpenFile>,
): AsyncGenerator<readonly Mapping[]> {
  const windows = new Map<number, HostWindow>()
  for await (const batch of batches) {
    let out: Mapping[] = []
    for (const mapping of batch) {
      const file = mapping.kind === 'data' ? sparse.get(mapping.store) : undefined
      if (mapping.kind !== 'data' || !file) {
        out.push(mapping)
        continue
      }
      const shift = mapping.start - mapping.offset
      const end = mapping.offset + mapping.length
      for (let at = mapping.offset; at < end; ) {
        let window = windows.get(mapping.store)
        if (!window || at < window.start || at >= window.end) {
          window = await nextWindow(file, at, end, window)
          windows.set(mapping.store, window)
        }
        const to = Math.min(end, window.end)
        for (const { start: offset, length, data } of window.between(at, to)) {
          const start = offset + shift
          if (data) out.push({ kind: 'data', start, length, store: mapping.store, offset })
          else out.push({ kind: 'zero', start, length })
        }
        at = to
        if (out.length >= BATCH) {
          yield out
          out = []
        }
      }
    }
    if (out.length > 0) yield out
  }
}

/** The window at `at`: one far ahead if the mappings follow each other in the file, else to `end`. */
async function nextWindow(
  file: OpenFile,
  at: number,
  end: number,
  last: HostWindow | undefined,
): Promise<HostWindow> {
  const onward = !last || (at >= last.end && at - last.end <= NEAR)
  return await hostWindow(file, at, onward ? file.size : end)
}
