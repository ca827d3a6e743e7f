import type { EditedImage } from '../../edit/edited-image.ts'
import { BackupError } from '../../errors.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import type { ImageDisk } from '../../image/steps.ts'
import { factsOf } from '../../source/bitmaps/facts.ts'
import { type BitmapHealth, validateBitmapChain } from '../../source/bitmaps/health.ts'
import { quoted } from '../../text.ts'
import { addFrom, addToBitmaps, bitmapsOf } from '../changes/add-to-bitmaps.ts'

/** Bitmaps of an image by their names, each with how many images right below have it too. */
export type BitmapsToKeep = ReadonlyMap<string, number>

/**
 * Which bitmaps need what images below have that drop out of the chain: an incremental backup takes
 * what any image of the chain has as dirty. What the guest sees does not change, so a bitmap of the
 * image alone stays right as it is.
 * @param before the image and what it builds on
 * @param after the image and what it is to build on
 * @throws BackupError BAD_BITMAP if one that is not to be trusted would seem to be
 */
export async function planBitmaps(
  before: readonly ChainImage[],
  after: readonly ChainImage[],
): Promise<BitmapsToKeep> {
  const [old, next] = [await healthOf(before), await healthOf(after)]
  const keep = new Map<string, number>()
  for (const [name, health] of old) {
    const then = next.get(name)
    if (!isUsable(health)) {
      if (then && isUsable(then)) throw wouldSeemRight(before[0].path, name)
      continue
    }
    const run = runOf(health)
    const stay = new Set(then && identities(after, runOf(then)))
    if (identities(before, run).some((identity) => !stay.has(identity))) keep.set(name, run)
  }
  return keep
}

/**
 * Sets, in bitmaps of an image, what those have that images below it have, too: before these drop out.
 * @param before the image and what it builds on
 */
export async function keepBitmaps(
  image: EditedImage,
  before: readonly ChainImage[],
  keep: BitmapsToKeep,
  { disk, signal }: { disk: ImageDisk; signal?: AbortSignal },
): Promise<EditedImage> {
  const below = await bitmapsOf(before.slice(1, 1 + Math.max(0, ...keep.values())))
  return await addToBitmaps(image, new Set(keep.keys()), {
    disk,
    signal,
    add: (bits, name) => addFrom(bits, below.slice(0, keep.get(name)), name, signal),
  })
}

/** The bitmaps of the topmost image along its chain, by their names. */
async function healthOf(chain: readonly ChainImage[]): Promise<Map<string, BitmapHealth>> {
  const facts = await Promise.all(chain.map((image) => factsOf(image, false)))
  const ofTop = validateBitmapChain(facts).filter(({ images: [top] }) => top.present)
  return new Map(ofTop.map((health) => [health.name, health]))
}

/** Whether an incremental backup goes by it: of the topmost image it may be disabled. */
function isUsable(health: BitmapHealth): boolean {
  const run = runOf(health)
  return health.images.every(({ present, inconsistent, recording }, i) => {
    return present === i <= run && !inconsistent && (recording || i === 0 || !present)
  })
}

/** How many images right below the topmost have it, too. */
function runOf({ images }: BitmapHealth): number {
  const end = images.findIndex(({ present }) => !present)
  return (end < 0 ? images.length : end) - 1
}

function identities(chain: readonly ChainImage[], run: number): string[] {
  return chain.slice(1, 1 + run).map(({ file }) => file.identity)
}

function wouldSeemRight(path: string, name: string): BackupError {
  const why =
    `its bitmap ${quoted(name)} is not valid along its chain, but would seem to be along the new ` +
    'one; remove it first'
  return new BackupError('BAD_BITMAP', path, why)
}
