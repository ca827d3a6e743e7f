import { quoted } from '../../text.ts'

/** One bitmap in one image of a chain. */
export interface BitmapFacts {
  name: string
  /** Bytes per bit. */
  granularity: number
  /** It records writes (flag `auto`; QMP: `recording`). */
  recording: boolean
  /** It is stored with the image, or will be: not only in a process's memory. */
  persistent: boolean
  /** Its content must not be trusted. */
  inconsistent: boolean
  /** Why, in words; default: it was in use when its process ended. */
  why?: string
  /** What to do about that; default: to remove it, take a full backup and add a new one. */
  remedy?: string
}

/** An image of a backing chain, as far as bitmaps go. */
export interface ImageFacts {
  /** Path, or the name of the node. */
  image: string
  bitmaps: readonly BitmapFacts[]
  /** Of its disk, bytes; undefined if it is not known. */
  virtualSize?: number
  /** Why it can have no bitmaps, in words: a raw file, version 2. */
  cannot?: string
  /** Why it is not known which bitmaps it has, in words. */
  unreadable?: string
}

/** One bitmap in one image. */
export interface BitmapPlace {
  image: string
  present: boolean
  recording: boolean
  inconsistent: boolean
  /** Bytes; null if it is not there. */
  granularity: number | null
}

/** Whether a bitmap records all changes along a chain. */
export interface BitmapHealth {
  name: string
  /** An incremental backup by it is right. */
  valid: boolean
  /** Faults, in words, each with its image and the remedy. */
  reasons: string[]
  /** Caveats, in words: ranges that count as changed though they may not be. */
  notes: string[]
  /** One for each image of the chain, top first. */
  images: BitmapPlace[]
}

const REMEDY = 'remove it, take a full backup and add a new one'

/**
 * Judges every bitmap of a backing chain by libvirt's rules (`qemuBlockBitmapChainIsValid`): it is
 * in the top image; the images that have it are one run from there; and in each of them it is
 * persistent, records, and is not inconsistent. Each bitmap is judged on its own.
 * Granularities may differ from image to image.
 * @param chain top first
 * @returns in the order in which the names come up, from the top down
 */
export function validateBitmapChain(chain: readonly ImageFacts[]): BitmapHealth[] {
  // By name, since an image may have any number of bitmaps.
  const places = new Map<string, (BitmapFacts | undefined)[]>()
  for (const [i, { bitmaps }] of chain.entries()) {
    for (const bitmap of bitmaps) {
      const found = places.get(bitmap.name) ?? new Array(chain.length).fill(undefined)
      found[i] ??= bitmap
      places.set(bitmap.name, found)
    }
  }
  return [...places].map(([name, found]) => healthOf(name, chain, found))
}

function healthOf(
  name: string,
  chain: readonly ImageFacts[],
  found: readonly (BitmapFacts | undefined)[],
): BitmapHealth {
  const all = faultsIn(name, chain, found)
  const reasons = all.map(({ image, why }) => `${chain[image].image}: ${why}`)
  const images = chain.map(({ image }, i) => placeOf(image, found[i]))
  const notes = shorterNotes(name, chain, found)
  return { name, valid: reasons.length === 0, reasons, notes, images }
}

/**
 * Says of images that have a bitmap and are shorter than the disk that the rest counts as changed:
 * they hide the content of those below them there, which no bitmap records.
 */
export function shorterThanDisk(name: string, chain: readonly ImageFacts[]): string[] {
  const found = chain.map(({ bitmaps }) => bitmaps.find((one) => one.name === name))
  return shorterNotes(name, chain, found)
}

function shorterNotes(
  name: string,
  chain: readonly ImageFacts[],
  found: readonly (BitmapFacts | undefined)[],
): string[] {
  const size = chain[0].virtualSize ?? 0
  return chain.flatMap(({ image, virtualSize = size }, i) => {
    if (virtualSize >= size || found[i] === undefined) return []
    const why = `its disk ends at ${virtualSize}, before the end of the disk at ${size}`
    return [`${image}: ${why}: for bitmap ${quoted(name)} the range between counts as changed`]
  })
}

/** The fault of a bitmap in one image. */
export interface BitmapFault {
  /** The image, by its index in the chain. */
  image: number
  /** It does not record: its content may still be right, if it is known when it was disabled. */
  disabled: boolean
  /** In words, with the remedy. */
  why: string
}

/** All that is wrong with a bitmap along a chain. */
export function faultsOf(name: string, chain: readonly ImageFacts[]): BitmapFault[] {
  const found = chain.map(({ bitmaps }) => bitmaps.find((one) => one.name === name))
  return faultsIn(name, chain, found)
}

function faultsIn(
  name: string,
  chain: readonly ImageFacts[],
  found: readonly (BitmapFacts | undefined)[],
): BitmapFault[] {
  return [...gaps(name, chain, found), ...unknowns(name, chain), ...faults(name, found)]
}

function placeOf(image: string, bitmap?: BitmapFacts): BitmapPlace {
  return {
    image,
    present: bitmap !== undefined,
    recording: bitmap?.recording ?? false,
    inconsistent: bitmap?.inconsistent ?? false,
    granularity: bitmap?.granularity ?? null,
  }
}

/** Where the run from the top is broken. */
function gaps(
  name: string,
  chain: readonly ImageFacts[],
  found: readonly (BitmapFacts | undefined)[],
): BitmapFault[] {
  const all: BitmapFault[] = []
  for (const [i, { cannot }] of chain.entries()) {
    const below = found.findIndex((bitmap, n) => n > i && bitmap !== undefined)
    if (found[i] !== undefined || below < 0) continue
    // A gap of several images is one gap.
    if (i > 0 && found[i - 1] === undefined) continue
    const lacks = `has no bitmap ${quoted(name)}${cannot ? ` (${cannot})` : ''}`
    const why =
      i === 0
        ? `${lacks}, but ${chain[below].image} below it has one: writes to the top are not recorded`
        : `${lacks}, but ${chain[below].image} below it has one: writes here were not recorded`
    all.push({ image: i, disabled: false, why: `${why}; ${REMEDY}` })
  }
  return all
}

/** Images that may have it, and are not known to. */
function unknowns(name: string, chain: readonly ImageFacts[]): BitmapFault[] {
  return chain.flatMap(({ unreadable }, image) => {
    if (unreadable === undefined) return []
    const why =
      `${unreadable}: ${quoted(name)} may have been one of them; take a full backup, and remove ` +
      'all bitmaps of the image'
    return [{ image, disabled: false, why }]
  })
}

/** Its fault in the images that have it. */
function faults(name: string, found: readonly (BitmapFacts | undefined)[]): BitmapFault[] {
  return found.flatMap((bitmap, image) => {
    if (!bitmap) return []
    const fault = (why: string, disabled = false) => {
      return { image, disabled, why: `bitmap ${quoted(name)} ${why}` }
    }
    const all: BitmapFault[] = []
    if (bitmap.inconsistent) {
      const why =
        bitmap.why ?? 'is inconsistent: a process that had the image open did not store it'
      all.push(fault(`${why}; ${bitmap.remedy ?? REMEDY}`))
    }
    if (!bitmap.recording) {
      const why = 'is disabled: writes made meanwhile are not recorded'
      all.push(fault(`${why}; enable it only if nothing was written, else ${REMEDY}`, true))
    }
    if (!bitmap.persistent) {
      all.push(fault('is only in memory and is lost when the process ends; add a persistent one'))
    }
    return all
  })
}
