/** Rules for arguments that are not options. */

import type { CustomTarget } from '../copy/target/custom-target.ts'
import { callback, either, list, PATH, type Rule, record, TEXT, whole } from '../schema.ts'
import type { CustomSource } from '../source/custom-source.ts'

/** The largest size of a disk, bytes: numbers are exact up to there. */
const DISK_SIZE = whole(0)

const CUSTOM_SOURCE: Rule<CustomSource> = record(
  { name: TEXT, size: DISK_SIZE, extents: callback(), read: callback() },
  { discard: callback(), close: callback() },
  { open: true },
)

/** A path, or a source of the program's own. Errors name the wrong field of the latter. */
export const SOURCE: Rule<string | CustomSource> = {
  ...either('neither a path nor a source', PATH, CUSTOM_SOURCE),
  fault(value) {
    if (typeof value === 'object' && value !== null) return CUSTOM_SOURCE.fault(value)
    return PATH.fault(value)
  },
}

export const PATHS = list(PATH)

/**
 * Path of a file to make. `-` is refused: it usually means standard output, for which there are streams,
 * and a file of that name would be a surprise.
 */
export const TARGET: Rule<string> = {
  ...PATH,
  fault(value) {
    if (value !== '-') return PATH.fault(value)
    return 'standard output is not supported as a target; ./- names a file'
  },
}

const CUSTOM_TARGET: Rule<CustomTarget> = record(
  { name: TEXT, write: callback(), flush: callback() },
  { size: DISK_SIZE, zero: callback(), close: callback() },
  { open: true },
)

/** Path of a file to make, or a custom target, whose faults are reported in detail. */
export const ANY_TARGET: Rule<string | CustomTarget> = {
  ...either('neither a path nor a target', TARGET, CUSTOM_TARGET),
  fault(value) {
    if (typeof value === 'object' && value !== null) return CUSTOM_TARGET.fault(value)
    return TARGET.fault(value)
  },
}
