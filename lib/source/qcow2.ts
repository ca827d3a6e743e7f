import type { Qcow2Image, TableWindow } from '../format/qcow2/image.ts'
import type { Run } from '../format/qcow2/tables.ts'
import { type HostWindow, hostWindow, windowOf } from './data-map.ts'
import type { OpenedFile } from './file.ts'
import type { Layer, Open, Window } from './layer.ts'
import type { Piece } from './source.ts'

/**
 * A qcow2 image that holds its own data, as a layer.
 * @param file index of the image in `Source.files`
 */
export function qcow2Layer(image: Qcow2Image, file: number): Layer {
  const { clusterSize, compressionType, virtualSize } = image.header
  const compression = compressionType === 0 ? 'deflate' : 'zstd'

  function pieceOf(run: Run): Piece | Open {
    const { start, length } = run
    switch (run.kind) {
      case 'unallocated':
        return { kind: 'open', start, length }
      case 'zero':
        return { kind: 'zero', start, length }
      case 'data':
        return { kind: 'data', start, length, file, offset: run.offset }
      case 'compressed': {
        const { offset, size, within } = run
        return { kind: compression, start, length, file, offset, size, clusterSize, within }
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
          for (const run of table.runs(from, to)) out.push(pieceOf(run))
        },
      }
    },
  }
}

/**
 * A qcow2 image whose data is in another file, as a layer. There a guest byte lies at its guest
 * offset, so the holes of that file can be told for whole windows; such bytes are allocated and
 * read as zero.
 * @param data the external data file
 * @param file its index in `Source.files`
 */
export function dataFileLayer(image: Qcow2Image, data: OpenedFile, file: number): Layer {
  const { virtualSize } = image.header
  let last: HostWindow | undefined

  async function dataWindow(at: number): Promise<HostWindow> {
    if (last && at >= last.start && at < last.end) return last
    const window =
      at < data.size
        ? await hostWindow(data, at)
        : windowOf([{ start: data.size, length: virtualSize - data.size, data: false }])
    last = window
    return window
  }

  function fill(table: TableWindow, host: HostWindow): Window['fill'] {
    return (from, to, out) => {
      for (const { kind, start, length } of table.runs(from, to)) {
        if (kind === 'unallocated') out.push({ kind: 'open', start, length })
        else if (kind === 'zero') out.push({ kind, start, length })
        else {
          for (const run of host.between(start, start + length)) {
            const { data, ...range } = run
            if (data) out.push({ kind: 'data', ...range, file, offset: run.start })
            else out.push({ kind: 'zero', ...range })
          }
        }
      }
    }
  }

  return {
    size: virtualSize,
    async window(at: number): Promise<Window> {
      const table = await image.window(at)
      const host = await dataWindow(at)
      return {
        start: Math.max(table.start, host.start),
        end: Math.min(table.end, host.end),
        fill: fill(table, host),
      }
    },
  }
}
