import { type HostWindow, hostWindow } from '../image/data-map.ts'
import type { OpenedFile } from '../image/file.ts'
import { BATCH } from './layer.ts'
import type { Piece } from './source.ts'

/** How far apart two pieces may lie in a file and still count as read in order. */
const NEAR = 2 ** 20

/**
 * Whether a qcow2 file may hold data clusters that were never written: it was preallocated, or has
 * large clusters with little in them. QEMU's rule, by which it decides whether to look for holes,
 * but for the clusters that are not in use: those only make us look more often.
 * @param clusterSize of the image, bytes
 */
export function looksPreallocated(file: OpenedFile, clusterSize: number): boolean {
  const real = Math.floor(file.allocatedBytes / clusterSize)
  return Math.floor(file.size / clusterSize) >= Math.max(Math.floor((real * 10) / 9), real + 2)
}

/**
 * Turns data that lies in holes of a file into zeroes, which then need not be read.
 * @param sparse the files to look into, by their index
 */
export async function* splitHoles(
  batches: AsyncIterable<readonly Piece[]>,
  sparse: ReadonlyMap<number, OpenedFile>,
): AsyncGenerator<readonly Piece[]> {
  const windows = new Map<number, HostWindow>()
  for await (const batch of batches) {
    let out: Piece[] = []
    for (const piece of batch) {
      const file = piece.kind === 'data' ? sparse.get(piece.store) : undefined
      if (piece.kind !== 'data' || !file) {
        out.push(piece)
        continue
      }
      const shift = piece.start - piece.offset
      const end = piece.offset + piece.length
      for (let at = piece.offset; at < end; ) {
        let window = windows.get(piece.store)
        if (!window || at < window.start || at >= window.end) {
          window = await nextWindow(file, at, end, window)
          windows.set(piece.store, window)
        }
        const to = Math.min(end, window.end)
        for (const { start: offset, length, data } of window.between(at, to)) {
          const start = offset + shift
          if (data) out.push({ kind: 'data', start, length, store: piece.store, offset })
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

/** The window at `at`: one far ahead if the pieces follow each other in the file, else to `end`. */
async function nextWindow(
  file: OpenedFile,
  at: number,
  end: number,
  last: HostWindow | undefined,
): Promise<HostWindow> {
  const onward = !last || (at >= last.end && at - last.end <= NEAR)
  return await hostWindow(file, at, onward ? file.size : end)
}
