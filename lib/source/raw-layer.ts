import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { hostWindow } from '../image/data-map.ts'
import type { OpenFile } from '../image/file.ts'
import { roundUp } from '../units.ts'
import type { Layer, Window } from './layer.ts'

/**
 * A raw image as a layer: ranges without blocks in the file system are left open (and so become a
 * hole, since a raw image is always the last of a chain). The guest sees whole sectors; what the
 * file lacks of the last one belongs to the hole.
 * @param index of the file in `Source.stores`
 */
export function rawLayer(file: OpenFile, index: number): Layer {
  const size = roundUp(file.size, SECTOR_SIZE)
  return {
    size,
    async window(at: number): Promise<Window> {
      if (at >= file.size) {
        const fill: Window['fill'] = (from, to, out) =>
          out.push({ kind: 'open', start: from, length: to - from })
        return { start: file.size, end: size, fill }
      }
      const host = await hostWindow(file, at, file.size)
      return {
        start: host.start,
        end: host.end,
        fill(from, to, out) {
          for (const { start, length, data } of host.between(from, to)) {
            if (data) out.push({ kind: 'data', start, length, store: index, offset: start })
            else out.push({ kind: 'open', start, length })
          }
        },
      }
    },
  }
}
