import type { MapEntry } from './map.ts'

/** Output of `map --output=json` before its first entry, between two, and after its last one. */
export const JSON_START = '['
export const JSON_SEPARATOR = ',\n'
export const JSON_END = ']\n'
/** The line before the rows for people. */
export const HUMAN_HEADER = `${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`

/** QEMU's words for data that is not in a file as it is. */
export const NOT_IN_PLACE = 'File contains external, encrypted or compressed clusters.'

/**
 * An entry as `--output=json` prints it, without the separator.
 * @param start of an empty range, which may be where no disk is, and no double
 * @param compressed whether `compressed` is printed, as since 8.2
 */
export function jsonEntry(entry: MapEntry, compressed: boolean, start?: bigint): string {
  const { length, depth, present, zero, data, offset } = entry
  return (
    `{ "start": ${length === 0 ? (start ?? entry.start) : entry.start}, "length": ${length}, "depth": ${depth}, "present": ${present}, ` +
    `"zero": ${zero}, "data": ${data}` +
    (compressed ? `, "compressed": ${entry.compressed}` : '') +
    // Above 2^53 a number prints rounded.
    (offset === undefined ? '' : `, "offset": ${BigInt(offset)}`) +
    '}'
  )
}

/** The row of an entry for people; only stored, nonzero data has one. */
export function humanRow({ start, length, data, zero, offset = 0, filename = '' }: MapEntry) {
  if (!data || zero) return ''
  return `${column(start)}${column(length)}${column(offset)}${filename}\n`
}

/** A number as C's `%#-16x` prints it. */
function column(n: number): string {
  return (n === 0 ? '0' : `0x${n.toString(16)}`).padEnd(16)
}
