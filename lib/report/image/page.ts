import { axis } from '../../page/chart.ts'
import { type Html, html } from '../../page/html.ts'
import { renderPage } from '../../page/page.ts'
import { TIPS } from '../../page/script.ts'
import { type Column, table } from '../../page/table.ts'
import { showText } from '../../text.ts'
import { formatSize } from '../../units.ts'
import { type Figure, figures, findingList, legend, more, timeText } from '../parts.ts'
import { STYLE } from '../style.ts'
import { type Band, type DiskScale, diskScale, strip } from './strip.ts'
import type { DiskMap, ImageReport, ReportedBitmap, ReportedImage } from './types.ts'

/** Rows of a list on the page: an image may have tens of thousands of bitmaps and snapshots. */
const MAX_ROWS = 100
/** Images up to which each has a strip as high as its words. */
const FEW_IMAGES = 24

const MAP_STYLE = `
.none { fill: var(--wash); }
.strip { margin: 0 0 .55rem; } .strip figcaption { display: flex; flex-wrap: wrap;
  justify-content: space-between; gap: 0 1rem; font-size: .85rem; } .strip figcaption span:first-child { overflow-wrap: anywhere; }
.many .strip { margin-bottom: .15rem; } .many figcaption { font-size: .72rem; }
`

/** The report of an image as a page. */
export function renderImageReport(report: ImageReport): string {
  const { image, time, images, virtualSize, pieceSize } = report
  const name = baseName(image)
  const scale = diskScale(virtualSize, pieceSize)
  const body = html`<header><h1>${name}</h1>
<p class="soft">${image} · as it was at ${timeText(time)}</p></header>
${figures(figuresOf(report))}
<h2>Health</h2>
${findingList(report.findings, MAX_ROWS)}
<h2>Map of the disk</h2>
${legend(kindsOf(report))}
${stripOf('As the guest sees it', report.map, report, scale, 44)}
<div class="${images.length > FEW_IMAGES ? 'many' : 'few'}">
${images.length > 1 && images.map((one) => imageStrip(one, scale, images.length))}</div>
${axis(scale.marks)}
${bitmapSection(report, scale)}
<h2>${images.length > 1 ? 'Images of the chain, the topmost first' : 'The image'}</h2>
${imageTable(images)}
${snapshotSection(report)}`
  return renderPage({ title: `Report of ${name}`, style: STYLE + MAP_STYLE, script: TIPS, body })
}

function figuresOf({ virtualSize, data, compressed, images }: ImageReport): Figure[] {
  const file = images.reduce((sum, one) => sum + one.allocatedBytes, 0)
  const [{ format, clusterSize }] = images
  const clusters = clusterSize === undefined ? undefined : `clusters of ${formatSize(clusterSize)}`
  const share = virtualSize > 0 ? ((data + compressed) / virtualSize) * 100 : 0
  return [
    ['Disk', formatSize(virtualSize)],
    [
      'Data in it',
      formatSize(data + compressed),
      `${share.toFixed(share < 10 ? 1 : 0)} % of the disk`,
    ],
    ['On storage', formatSize(file), images.length > 1 ? 'all files together' : undefined],
    ['Images', `${images.length}`, images.length > 1 ? 'each over the next' : 'stands alone'],
    ['Format', format, clusters],
  ]
}

/** Kinds of bytes of a map, by the classes of their colours, from below. */
type Kind = keyof typeof KINDS

const KINDS = {
  data: 'data',
  compressed: 'compressed',
  zero: 'zeroes',
  hidden: 'hidden by newer data',
  unknown: 'not readable',
} as const

/** Those that there are. */
function kindsOf({ images, ...disk }: ImageReport): [string, string][] {
  const all = [disk, ...images]
  const kinds = (Object.keys(KINDS) as Kind[]).filter((kind) => all.some((one) => one[kind] > 0))
  return [...kinds.map((kind): [string, string] => [kind, KINDS[kind]]), ['none', 'nothing']]
}

function stripOf(
  name: string,
  map: DiskMap,
  amounts: Pick<ReportedImage, Kind>,
  scale: DiskScale,
  height: number,
): Html {
  const bands = (Object.keys(KINDS) as Kind[]).map((kind): Band => [kind, KINDS[kind], map[kind]])
  const words = amountWords(amounts)
  const label = `${name}: ${words}`
  return html`<figure class="strip"><figcaption><span>${name}</span><span class="soft">${words}</span></figcaption>
${strip(label, bands, scale, height)}</figure>
`
}

function imageStrip(image: ReportedImage, scale: DiskScale, count: number): Html {
  return stripOf(baseName(image.image), image.map, image, scale, count > FEW_IMAGES ? 10 : 22)
}

function amountWords(amounts: Pick<ReportedImage, Kind>): string {
  const parts = (Object.keys(KINDS) as Kind[])
    .filter((kind) => amounts[kind] > 0)
    .map((kind) => `${formatSize(amounts[kind])} ${kind === 'hidden' ? 'hidden' : KINDS[kind]}`)
  return parts.length > 0 ? parts.join(', ') : 'nothing'
}

function imageTable(images: readonly ReportedImage[]): Html {
  const columns: Column[] = [
    { label: 'Image', text: 'words' },
    { label: 'Format', text: 'line' },
    { label: 'Disk' },
    { label: 'File' },
    { label: 'On storage' },
    { label: 'Data seen' },
    { label: 'Hidden' },
    { label: 'Fragments' },
    { label: 'Structure', text: 'line' },
  ]
  const rows = images.map((one) => {
    const { clusterSize, check } = one
    const clusters = clusterSize === undefined ? '' : `, ${formatSize(clusterSize)}`
    return [
      one.image,
      `${one.format}${clusters}`,
      formatSize(one.virtualSize),
      formatSize(one.fileSize),
      formatSize(one.allocatedBytes),
      formatSize(one.data + one.compressed),
      formatSize(one.hidden),
      check?.fragmentation === undefined ? '' : `${check.fragmentation.toFixed(1)} %`,
      structureWords(one),
    ]
  })
  return table(columns, rows)
}

function structureWords({ check, live, format }: ReportedImage): Html | string {
  if (live) return 'in use, not checked'
  if (!check) return format === 'raw' ? '' : html`<span class="bad">not readable</span>`
  if (check.corruptions + check.checkErrors > 0) return html`<span class="bad">damaged</span>`
  return check.leaks > 0 ? 'sound, wastes space' : html`<span class="good">sound</span>`
}

function bitmapSection({ bitmaps }: ImageReport, scale: DiskScale): Html | false {
  if (bitmaps.length === 0) return false
  const shown = bitmaps.slice(0, MAX_ROWS)
  return html`<h2>Dirty bitmaps</h2>
<p class="soft">What was written since each began, in the image that has it.</p>
${shown.map((one) => bitmapStrip(one, scale))}${axis(scale.marks)}${more(bitmaps.length - MAX_ROWS)}`
}

function bitmapStrip(bitmap: ReportedBitmap, scale: DiskScale): Html {
  const { image, name, granularity, recording, inconsistent, dirtyBytes, map } = bitmap
  const state = inconsistent ? 'inconsistent' : recording ? 'recording' : 'disabled'
  const dirty = dirtyBytes === undefined ? 'not read' : `${formatSize(dirtyBytes)} dirty`
  const words = `${dirty}, ${state}, ${formatSize(granularity)} a bit`
  const title = `${name} in ${baseName(image)}`
  const drawn = map && strip(`${showText(title)}: ${words}`, [['dirty', 'dirty', map]], scale, 16)
  return html`<figure class="strip"><figcaption><span>${title}</span><span class="soft">${words}</span></figcaption>
${drawn}</figure>
`
}

function snapshotSection({ snapshots }: ImageReport): Html | false {
  if (snapshots.length === 0) return false
  const columns: Column[] = [
    { label: 'Snapshot', text: 'words' },
    { label: 'Id', text: 'words' },
    { label: 'Image', text: 'words' },
    { label: 'Made', text: 'line' },
    { label: 'Disk' },
    { label: 'Machine state' },
  ]
  const rows = snapshots
    .slice(0, MAX_ROWS)
    .map(({ id, name, image, time, diskSize, vmStateSize }) => {
      const state = vmStateSize > 0 ? formatSize(vmStateSize) : ''
      return [name, id, baseName(image), timeText(time), formatSize(diskSize), state]
    })
  return html`<h2>Internal snapshots</h2>
${table(columns, rows)}${more(snapshots.length - MAX_ROWS)}`
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1) || path
}
