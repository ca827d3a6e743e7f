/**
 * Names of machines and disks as names of files. They may be any bytes, and two different names never
 * become one.
 *
 * - Letters and most other characters stay as they are; the rest is percent-encoded, byte by byte: `/`, `%`,
 *   what no terminal should print, bytes that are not UTF-8, and a dot or dash at the beginning.
 * - Of a disk every dot is encoded, so in `DISK.POINT.qcow2` the first one ends the disk.
 * - A name that would be too long is cut and gets `%-` and a hash, which nothing else is encoded to; the
 *   record has the whole name.
 */
import { createHash } from 'node:crypto'
import { argumentError } from '../errors.ts'
import { decodeText, encodeText, quoted } from '../text.ts'

/** Bytes. A file name has at most 255, and a temporary one is longer than its file's. */
const MAX_MACHINE = 200
const MAX_DISK = 80
const MAX_POINT = 120

/** In the directory of a repository. */
export const MARK = 'repository.json'
/** What stands there beside the machines, and what machines of these names have. */
const RESERVED: Record<string, string> = {
  [MARK]: 'repository%2Ejson',
  // File systems make it, and nobody but root may look into it.
  'lost+found': 'lost%2Bfound',
}

/** The directory of a machine. */
export function machineDirectory(machine: string): string {
  const name = shortened(encoded(machine, /[/%]/u), MAX_MACHINE)
  return RESERVED[name] ?? name
}

/** The machine of a directory; undefined if the name was shortened, or is none of a machine's. */
export function machineOf(directory: string): string | undefined {
  const machine = decoded(directory)
  return machineDirectory(machine) === directory ? machine : undefined
}

/** A file of a disk that is restored: all dots are encoded, so that none begins another ending. */
export function diskFile(disk: string, ending: string): string {
  return `${shortened(encoded(disk, /[/%.]/u), MAX_DISK)}.${ending}`
}

/** The image of a disk at a point. */
export function imageName(disk: string, point: string): string {
  return diskFile(disk, `${point}.qcow2`)
}

export function recordName(point: string): string {
  return `${point}.json`
}

export function definitionName(point: string): string {
  return `${point}.xml`
}

/**
 * The disk and the point of an image.
 * @returns undefined if a file of that name is none; without `disk` if its name was shortened
 */
export function imageOf(file: string): { disk?: string; point: string } | undefined {
  const [, name, point] = /^([^.]+)\.(.+)\.qcow2$/s.exec(file) ?? []
  if (name === undefined || !isPointName(point)) return undefined
  const disk = decoded(name)
  if (imageName(disk, point) === file) return { disk, point }
  return /%-[0-9a-f]{32}$/.test(name) ? { point } : undefined
}

/** The point of a definition; undefined if a file of that name is none. */
export function definitionOf(file: string): string | undefined {
  const point = /^(.*)\.xml$/s.exec(file)?.[1]
  return point !== undefined && isPointName(point) ? point : undefined
}

/** The point of a record; undefined if a file of that name is none. */
export function pointOf(file: string): string | undefined {
  const point = /^(.*)\.json$/s.exec(file)?.[1]
  return point !== undefined && isPointName(point) ? point : undefined
}

/**
 * Checks the name of a point, which is also the name of a bitmap, and stands in names of files as it is.
 * @throws BackupError USAGE
 */
export function requirePointName(argument: string, point: string): void {
  const fault = faultOf(point)
  if (fault !== undefined) throw argumentError(argument, `${quoted(point)} ${fault}`)
}

export function isPointName(point: string): boolean {
  return faultOf(point) === undefined
}

function faultOf(point: string): string | undefined {
  if (point === '') return 'is no name'
  if (encodeText(point).length > MAX_POINT) return `is longer than ${MAX_POINT} bytes`
  if (encoded(point, /[/%@]/u) === point) return undefined
  return 'cannot be part of the name of a file: it has /, %, @, begins with . or -, or is not printable'
}

/** Most names: nothing of them is encoded, whatever else is. */
const PLAIN = /^\w[\w-]*$/

function encoded(name: string, more: RegExp): string {
  if (PLAIN.test(name)) return name
  return Array.from(name, (character, index) => {
    const isFirst = index === 0 && (character === '.' || character === '-')
    return isFirst || UNPRINTABLE.test(character) || more.test(character)
      ? hexOf(character)
      : character
  }).join('')
}

/** What `encoded` was given, if it was not shortened. */
function decoded(name: string): string {
  const parts = name.match(/%[0-9A-F]{2}|[^%]+|%/gs) ?? []
  const bytes = parts.map((part) =>
    part.startsWith('%') && part.length === 3
      ? Buffer.from(part.slice(1), 'hex')
      : encodeText(part),
  )
  return decodeText(Buffer.concat(bytes))
}

/**
 * Control characters, those that change how others look, and halves of a pair: bytes that belong to no
 * character (see lib/text.ts). Spelled out, as what Unicode has grows and names must not change.
 */
const UNPRINTABLE =
  /[\p{Cc}\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/u

function hexOf(character: string): string {
  return Array.from(
    encodeText(character),
    (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('')
}

function shortened(name: string, most: number): string {
  // No name at all is the shortest.
  if (name !== '' && encodeText(name).length <= most) return name
  const hash = createHash('sha256').update(encodeText(name)).digest('hex').slice(0, 32)
  let kept = ''
  for (const character of name) {
    if (encodeText(kept + character).length > most - hash.length - 2) break
    kept += character
  }
  return `${kept.replace(/%.?$/, '')}%-${hash}`
}
