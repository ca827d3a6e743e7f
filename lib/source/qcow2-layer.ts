import type { Qcow2Image } from '../format/qcow2/qcow2-image.ts'
import type { Run } from '../format/qcow2/tables.ts'
import type { Layer, OpenRange, Window } from './layer.ts'
import type { Mapping } from './source.ts'

/**
 * A qcow2 image as a layer.
 * @param store index in `Source.stores` of the file that the guest's bytes are in: the image itself,
 * or its external data file
 */
export function qcow2Layer(image: Qcow2Image, store: number): Layer {
  const { clusterSize, compressionType, virtualSize } = image.header
  const compression = compressionType === 0 ? 'deflate' : 'zstd'

  function mappingOf(run: Run): Mapping | OpenRange {
    const { start, length } = run
    switch (run.kind) {
      case 'unallocated':
        return { kind: 'open', start, length }
      case 'zero':
        return { kind: 'zero', start, length }
      case 'data':
        return { kind: 'data', start, length, store, offset: run.offset }
      case 'compressed': {
        const { offset, size, within } = run
        return { kind: compression, start, length, store, offset, size, clusterSize, within }
      }
    }
  }

  return {
    size: virtualSize,
    async window(at: number): Promise<Window> {
      const table = await image.window(at)
      return {
        start: table.start,
        end: table.end,
        fill(from, to, out) {
          for (const run of table.runs(from, to)) out.push(mappingOf(run))
        },
      }
    },
  }
}
