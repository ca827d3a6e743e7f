/** Reports that were made by hand, with names that are not to become anything but text. */
import type { DiskMap, ImageReport, ReportedImage } from '../../lib/index.ts'
import { MapInPieces, pieceSizeOf } from '../../lib/report/image/pieces.ts'
import { decodeText } from '../../lib/text.ts'
import { seeded } from '../support/random.ts'

/** Each is anyone's choice. */
export const HOSTILE_NAMES = [
  '</script><script>document.title="owned"</script>',
  '"><img src="http://192.0.2.1/x" onerror="document.title=\'owned\'">',
  "' onmouseover='document.title=1' x='",
  '</title></style><svg onload=alert(1)>',
  '\u202egnp.elbissop\u0000\n\u001b[31m',
  decodeText(Buffer.from([0x6e, 0x61, 0xff, 0xc3, 0x28])),
  'x'.repeat(1000),
] as const

const GIB = 2 ** 30

/** A chain with a hostile name everywhere. */
export function hostileImageReport(count: number = HOSTILE_NAMES.length): ImageReport {
  const random = seeded(1)
  const virtualSize = 100 * GIB
  const name = (i: number) => HOSTILE_NAMES[i % HOSTILE_NAMES.length]
  const images = Array.from({ length: count }, (_, i): ReportedImage => {
    const map = new MapInPieces(virtualSize)
    for (let n = 0; n < 300; n++) {
      const kind = (['data', 'deflate', 'zero'] as const)[n % 3]
      const start = Math.floor(random() * virtualSize)
      const run = { start, length: random() * 10 ** 8, store: 0, offset: 0 }
      map.add({ ...run, kind, size: 1, clusterSize: 65536, within: 0 } as never)
    }
    return {
      image: `/srv/${name(i)}`,
      format: 'qcow2',
      ...{ virtualSize, fileSize: GIB, allocatedBytes: GIB, clusterSize: 65536 },
      live: i === 1,
      check: { corruptions: i === 2 ? 1 : 0, leaks: i, checkErrors: 0, fragmentation: i / 3 },
      ...map.result(new MapInPieces(virtualSize)),
    }
  })
  const [{ map, data, compressed, zero, hidden, unknown }] = images
  return {
    image: `/srv/${name(0)}`,
    time: '2026-11-29T11:52:00.000Z',
    virtualSize,
    findings: HOSTILE_NAMES.map((text, i) => {
      return { level: (['fault', 'warning', 'note', 'good'] as const)[i % 4], text }
    }),
    images,
    bitmaps: HOSTILE_NAMES.map((text, i) => {
      const state = { recording: i % 2 === 0, inconsistent: i % 3 === 0 }
      const dirty = i % 3 === 0 ? {} : { dirtyBytes: data, map: map.hidden }
      return { image: text, name: text, granularity: 65536, ...state, ...dirty }
    }),
    bitmapHealth: [],
    snapshots: HOSTILE_NAMES.map((text) => {
      const time = '2026-01-02T03:04:05.000Z'
      return { image: text, id: text, name: text, time, diskSize: GIB, vmStateSize: GIB }
    }),
    pieceSize: pieceSizeOf(virtualSize),
    map: map satisfies DiskMap,
    ...{ data, compressed, zero, hidden, unknown },
  }
}
