import type { Range } from '../../extents/range-set.ts'
import { badRange, badRequest } from '../ticket/http-error.ts'

/** Sizes that bound a request, bytes. */
export interface Bounds {
  /** What the ticket allows. */
  ticket: number
  /** What there is. */
  disk: number
}

/**
 * The range that a Range header names: `bytes=A-B` or `bytes=A-`, with nothing else in it.
 * @throws HttpError 416
 */
export function rangeOf(header: string, { ticket, disk }: Bounds): Range {
  const [, first, last] = /^bytes=(\d{1,16})-(\d{0,16})$/.exec(header) ?? []
  if (first === undefined) throw badRange('The Range is not one of the form bytes=FIRST-LAST')
  const start = Number(first)
  const size = Math.min(ticket, disk)
  const end = last === '' ? size : Number(last) + 1
  if (last !== '' && end <= start) throw badRange('The Range ends before it starts')
  if (end > ticket || (last === '' && start >= ticket)) {
    throw badRange(`The Range goes past the size of the ticket, ${ticket} bytes`, ticket)
  }
  if (end > disk || start >= disk) {
    throw badRange(`The Range goes past the end of the image, ${disk} bytes`, disk)
  }
  return { start, length: end - start }
}

/**
 * Where a Content-Range header begins; it counts only as that.
 * @throws HttpError 400
 */
export function contentStart(header: string | undefined): number {
  if (header === undefined) return 0
  const first = /^bytes (\d{1,16})-(?:\d{1,16}|\*)\/(?:\d{1,16}|\*)$/.exec(header)?.[1]
  if (first === undefined)
    throw badRequest('The Content-Range is not one of the form bytes FIRST-LAST/TOTAL')
  return Number(first)
}

/**
 * Makes sure that a write stays where it may be.
 * @throws HttpError 416
 */
export function requireWithin({ start, length }: Range, { ticket, disk }: Bounds): void {
  for (const size of [ticket, disk]) {
    if (start + length <= size) continue
    throw badRange(`${length} bytes at ${start} go past ${size}`, size)
  }
}
