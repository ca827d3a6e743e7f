import { quoted } from '../format/qcow2/fields.ts'

/** What an image of a chain holds of one bitmap. */
export interface BitmapFacts {
  name: string
  /** Bytes that one bit stands for. */
  granularity: number
  /** It records what is written (flag `auto`; QMP: `recording`). */
  recording: boolean
  /** It is stored with the image, or will be: not only in a process's memory. */
  persistent: boolean
  /** What it says is not to be trusted. */
  inconsistent: boolean
  /** Why, in words; default: it was in use when its process ended. */
  why?: string
}

/** An image of a backing chain, as far as bitmaps go. */
export interface ImageFacts {
  /** Path, or the name of the node. */
  image: string
  bitmaps: readonly BitmapFacts[]
  /** Why it can have no bitmaps, in words: a raw file, version 2. */
  cannot?: string
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

/** Whether a bitmap tells what changed, along a chain. */
export interface BitmapHealth {
  name: string
  /** An incremental backup by it is right. */
  valid: boolean
  /** What is wrong, in words, each with the image it is about and the remedy. */
  reasons: string[]
  /** One for each image of the chain, top first. */
  images: BitmapPlace[]
}

const REMEDY = 'remove it, take a full backup and add a new one'

/**
 * Judges every bitmap of a backing chain by libvirt's rules (`qemuBlockBitmapChainIsValid`): it is
 * in the top image; the images that have it are one run from there; and in each of them it is
 * persistent, records, and is not inconsistent. What is wrong with one says nothing of the others.
 * Granularities may differ from image to image.
 * @param chain top first
 * @returns in the order in which the names come up, from the top down
 */
export function validateBitmapChain(chain: readonly ImageFacts[]): BitmapHealth[] {
  const names = new Set(chain.flatMap(({ bitmaps }) => bitmaps.map(({ name }) => name)))
  return [...names].map((name) => healthOf(name, chain))
}

function healthOf(name: string, chain: readonly ImageFacts[]): BitmapHealth {
  const found = chain.map(({ bitmaps }) => bitmaps.find((one) => one.name === name))
  const reasons = [...gaps(name, chain, found), ...faults(name, chain, found)]
  const images = chain.map(({ image }, i) => placeOf(image, found[i]))
  return { name, valid: reasons.length === 0, reasons, images }
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
): string[] {
  const reasons: string[] = []
  for (const [i, { image, cannot }] of chain.entries()) {
    const below = found.findIndex((bitmap, n) => n > i && bitmap !== undefined)
    if (found[i] !== undefined || below < 0) continue
    // A gap of several images is one gap.
    if (i > 0 && found[i - 1] === undefined) continue
    const lacks = `${image}: has no bitmap ${quoted(name)}${cannot ? ` (${cannot})` : ''}`
    const why =
      i === 0
        ? `${lacks}, but ${chain[below].image} below it has: what is written to the top is not recorded`
        : `${lacks}, but ${chain[below].image} below it has: what was written here was not recorded`
    reasons.push(`${why}; ${REMEDY}`)
  }
  return reasons
}

/** What is wrong with it where it is. */
function faults(
  name: string,
  chain: readonly ImageFacts[],
  found: readonly (BitmapFacts | undefined)[],
): string[] {
  return chain.flatMap(({ image }, i) => {
    const bitmap = found[i]
    if (!bitmap) return []
    const at = `${image}: bitmap ${quoted(name)}`
    const reasons: string[] = []
    if (bitmap.inconsistent) {
      const why =
        bitmap.why ?? 'is inconsistent: a process that had the image open did not store it'
      reasons.push(`${at} ${why}; ${REMEDY}`)
    }
    if (!bitmap.recording) {
      const why = 'is disabled: what was written meanwhile is not in it'
      reasons.push(`${at} ${why}; enable it only if nothing was written, else ${REMEDY}`)
    }
    if (!bitmap.persistent) {
      reasons.push(`${at} is only in memory, and ends with the process; add a persistent one`)
    }
    return reasons
  })
}
