import type { ServedDisk } from '../disk/served-disk.ts'
import { badRequest } from '../ticket/http-error.ts'

/**
 * Makes sure that a write has the alignment that the server of an export demands.
 * @throws HttpError 400
 */
export function requireAligned({ unit, size }: ServedDisk, start: number, length: number): void {
  const end = start + length
  if (start % unit === 0 && (end % unit === 0 || end === size)) return
  throw badRequest(`Start and length of a write have to be multiples of ${unit}`)
}
