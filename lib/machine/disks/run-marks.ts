/**
 * Which bitmaps of an image belong to a run that has not ended. A bitmap that begins at a point in time
 * has the name that the user knows, the point's; so in the same write of the image that adds it a second,
 * disabled bitmap without a bit set comes beside it, whose name has the run's id. In the same write in which the
 * run ends well or badly the mark goes. A killed run leaves both, and whoever finds the mark knows
 * what is of that run.
 */
import type { Bitmap } from '../../format/qcow2/bitmaps.ts'
import type { NamedOperation } from '../../maintain/edit-bitmap.ts'
import { RUN_ID, RUN_PREFIX } from '../machine.ts'

/** A checkpoint's bitmap of a run that has not ended. */
export interface Mark {
  /** The name of the marking bitmap. */
  name: string
  run: string
  checkpoint: string
}

/** The largest there is: it has hardly a bit. */
const MARK_GRANULARITY = 2 ** 31

/**
 * Adds a bitmap that records from now on, and its mark.
 * @param granularity of the bitmap, bytes
 */
export function begin(run: string, checkpoint: string, granularity: number): NamedOperation[] {
  const name = `${RUN_PREFIX}${run}-${checkpoint}`
  return [
    { name: checkpoint, operation: { kind: 'add', granularity } },
    { name, operation: { kind: 'add', granularity: MARK_GRANULARITY } },
    { name, operation: { kind: 'disable' } },
  ]
}

/**
 * Ends runs.
 * @param bitmaps of the image
 * @param marks of the runs
 * @param isStored the bitmap of such a run stays
 */
export function end(
  bitmaps: readonly Pick<Bitmap, 'name'>[],
  marks: readonly Mark[],
  isStored: (run: string) => boolean,
): NamedOperation[] {
  const there = new Set(bitmaps.map(({ name }) => name))
  return marks
    .flatMap(({ name, run, checkpoint }) => (isStored(run) ? [name] : [name, checkpoint]))
    .filter((name) => there.delete(name))
    .map((name) => ({ name, operation: { kind: 'remove' } }))
}

/** The marks among the bitmaps of an image. */
export function marksOf(bitmaps: readonly Pick<Bitmap, 'name'>[]): Mark[] {
  return bitmaps.flatMap(({ name }) => {
    if (!name.startsWith(RUN_PREFIX)) return []
    const [run, dash, checkpoint] = [name.slice(PREFIX, RUN), name[RUN], name.slice(RUN + 1)]
    return RUN_ID.test(run) && dash === '-' && checkpoint ? [{ name, run, checkpoint }] : []
  })
}

const PREFIX = RUN_PREFIX.length
const RUN = PREFIX + 12
