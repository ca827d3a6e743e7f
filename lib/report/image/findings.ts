import { CORRUPT, DIRTY } from '../../format/qcow2/constants.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import type { BitmapHealth } from '../../source/bitmaps/health.ts'
import { quoted } from '../../text.ts'
import { formatSize } from '../../units.ts'
import type { Finding } from '../finding.ts'
import type { ReportedImage } from './types.ts'

/** Percent of fragments from which reading in order is slower, and from which it is slow. */
const SOME_FRAGMENTS = 10
const MANY_FRAGMENTS = 40
/** Images: the next backup of a machine begins a new chain at 190, libvirt opens 200. */
const LONG_CHAIN = 100
/** Bitmaps that findings name; the table has the rest. */
const MAX_NAMED = 20

/** The health of a chain in words. */
export function findingsOf(
  chain: readonly ChainImage[],
  images: readonly ReportedImage[],
  bitmaps: readonly BitmapHealth[],
  virtualSize: number,
): Finding[] {
  const unsound = images.flatMap(structureOf)
  const found = [...unsound, ...chain.flatMap(flagsOf)]
  if (found.length === 0 && images.some(({ check }) => check)) {
    const text = images.length === 1 ? 'The structure of the image is sound.' : allSound(images)
    found.push({ level: 'good', text })
  }
  return [...found, ...chainOf(images, virtualSize), ...fragmentsOf(images), ...bitmapsOf(bitmaps)]
}

function allSound(images: readonly ReportedImage[]): string {
  const checked = images.filter(({ check }) => check).length
  return `The structure of all ${checked} qcow2 images is sound.`
}

function structureOf({ image, check, live, clusterSize = 0 }: ReportedImage): Finding[] {
  const all: Finding[] = []
  const add = (level: Finding['level'], why: string) =>
    all.push({ level, text: `${image}: ${why}` })
  if (live) {
    const memory = 'what it has not written yet is unknown, and the structure was not checked'
    add('note', `another process has it open for writing: ${memory}`)
  }
  if (!check) return all
  const { corruptions, leaks, checkErrors } = check
  if (corruptions > 0) {
    const act = 'do not write to it; restore a backup, or repair a copy with check -r all'
    add(
      'fault',
      `${count(corruptions, 'error')} in its structure: data may be wrong or get lost; ${act}`,
    )
  }
  if (checkErrors > 0) add('fault', `${count(checkErrors, 'part')} of it could not be checked`)
  if (leaks > 0) {
    const size = formatSize(leaks * clusterSize)
    add(
      'warning',
      `${size} of its file are used for nothing; no data is in danger, and check -r leaks frees them`,
    )
  }
  return all
}

function flagsOf({ path, header }: ChainImage): Finding[] {
  const flags = header?.incompatibleFeatures ?? 0n
  const all: Finding[] = []
  if ((flags & CORRUPT) !== 0n) {
    all.push({ level: 'fault', text: `${path}: is marked as corrupt: its content may be wrong` })
  }
  if ((flags & DIRTY) !== 0n) {
    const why = 'the last program that wrote to it did not close it; check -r leaks puts that right'
    all.push({ level: 'warning', text: `${path}: ${why}` })
  }
  return all
}

function chainOf(images: readonly ReportedImage[], virtualSize: number): Finding[] {
  const all: Finding[] = []
  if (images.length > 1) {
    const long = images.length >= LONG_CHAIN
    const why = long ? 'commit images or make a full backup soon' : 'none may be missing or changed'
    const text = `The disk is made of ${images.length} files, each over the next: ${why}.`
    all.push({ level: long ? 'warning' : 'note', text })
  }
  for (const { image, virtualSize: end } of images) {
    if (end >= virtualSize) continue
    const text = `${image}: its disk ends at ${formatSize(end)}: past that it, and what is below it, reads as zero`
    all.push({ level: 'note', text })
  }
  const hidden = images.reduce((sum, one) => sum + one.hidden, 0)
  if (hidden > 0) {
    const text = `${formatSize(hidden)} are stored and never read, as images above have newer content.`
    all.push({ level: 'note', text })
  }
  return all
}

function fragmentsOf(images: readonly ReportedImage[]): Finding[] {
  return images.flatMap(({ image, check }): Finding[] => {
    const percent = check?.fragmentation ?? 0
    if (percent < SOME_FRAGMENTS) return []
    const share = `${percent.toFixed(percent < 99.95 ? 1 : 0)} % of its clusters do not follow the one before`
    if (percent < MANY_FRAGMENTS)
      return [
        { level: 'note', text: `${image}: ${share}: reading it in order takes somewhat longer` },
      ]
    return [
      {
        level: 'warning',
        text: `${image}: ${share}: reading it in order is slow on rotating disks; a copy of it (full) has none`,
      },
    ]
  })
}

function bitmapsOf(bitmaps: readonly BitmapHealth[]): Finding[] {
  const invalid = bitmaps.filter(({ valid }) => !valid)
  const all = invalid.slice(0, MAX_NAMED).map(({ name, reasons }): Finding => {
    return {
      level: 'warning',
      text: `Bitmap ${quoted(name)} cannot be used: ${reasons.join('; ')}`,
    }
  })
  if (invalid.length > MAX_NAMED) {
    const more = `${invalid.length - MAX_NAMED} more bitmaps cannot be used.`
    all.push({ level: 'warning', text: more })
  }
  const valid = bitmaps.length - invalid.length
  if (valid > 0) {
    const text = `${count(valid, 'bitmap')} can be used for an incremental backup.`
    all.push({ level: 'good', text })
  }
  return all
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}
