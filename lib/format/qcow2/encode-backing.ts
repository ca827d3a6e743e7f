/** The first cluster of an image that comes to name another backing file, or none. */
import { encodeText } from '../../text.ts'
import { EXT_BACKING_FORMAT, FIELD, SECTOR_SIZE } from './constants.ts'
import {
  EXT_HEAD,
  EXT_ROOM,
  encodeExtensions,
  encodeRaw,
  endOfExtensions,
  padded,
} from './encode.ts'
import type { Qcow2Header, RawExtension } from './header-fields.ts'

/** A backing file as an image records it. */
export interface RecordedBacking {
  /** The name, at most MAX_BACKING_NAME bytes. */
  file: string
  format: string
}

/** Bytes of the first cluster. */
export interface UsedRange {
  start: number
  length: number
}

/**
 * Layouts of the first cluster with another backing file, or without one, the tidiest first. All
 * other extensions stay. They differ in what of it keeps its place, so that one of them may be reached
 * by writing bytes that mean nothing yet, and then the first sector.
 * @param first the first cluster as it is
 * @param header decoded from it
 * @returns as many bytes as `first` each; none if there is no room in them
 */
export function backingLayouts(
  first: Buffer,
  header: Qcow2Header,
  backing: RecordedBacking | undefined,
): Buffer[] {
  const { all } = header.extensions
  const isFormat = ({ type }: RawExtension) => type === EXT_BACKING_FORMAT
  const others = all.filter((extension) => !isFormat(extension))
  const place = Math.max(all.findIndex(isFormat), 0)
  const behind = padded(
    Math.max(...usedRanges(first, header).map(({ start, length }) => start + length)),
  )
  const layouts: (Buffer | undefined)[] = []
  if (!backing) {
    layouts.push(laidOut(others))
    // It means nothing, and nothing else moves.
    layouts.push(laidOut(all.map((one) => (isFormat(one) ? { ...one, type: EXT_ROOM } : one))))
  } else {
    const format = { type: EXT_BACKING_FORMAT, data: encodeText(backing.format) }
    const extensions = [...others.slice(0, place), format, ...others.slice(place)]
    const name = encodeText(backing.file)
    layouts.push(laidOut(extensions, name), laidOut(extensions, name, behind))
    layouts.push(inFirstSector(format, name))
  }
  return layouts.filter((layout) => layout !== undefined)

  /** @param from where the name may be; default: right behind the extensions */
  function laidOut(
    extensions: readonly RawExtension[],
    name?: Buffer,
    from = 0,
  ): Buffer | undefined {
    const area = encodeExtensions(extensions)
    const cluster = Buffer.from(first)
    const end = header.headerLength + area.length
    if (end > first.length) return undefined
    area.copy(cluster, header.headerLength)
    return withName(cluster, name, Math.max(end, from))
  }

  /** The format in the first sector, and all else behind what means something now. */
  function inFirstSector(format: RawExtension, name: Buffer): Buffer | undefined {
    const bytes = encodeRaw(format)
    const skipAt = header.headerLength + bytes.length
    if (skipAt + EXT_HEAD > SECTOR_SIZE) return undefined
    const area = encodeExtensions(others.filter(({ type }) => type !== EXT_ROOM))
    const to = Math.max(behind, SECTOR_SIZE)
    if (to + area.length > first.length) return undefined
    const cluster = Buffer.from(first)
    bytes.copy(cluster, header.headerLength)
    cluster.writeUInt32BE(EXT_ROOM, skipAt)
    cluster.writeUInt32BE(to - skipAt - EXT_HEAD, skipAt + 4)
    area.copy(cluster, to)
    return withName(cluster, name, to + area.length)
  }
}

/** What of the first cluster behind the header's fields means something: extensions, and the name. */
export function usedRanges(first: Buffer, header: Qcow2Header): UsedRange[] {
  const { headerLength, backingFileOffset, backingFileSize } = header
  const end = endOfExtensions(first, header)
  const extensions = { start: headerLength, length: end - headerLength }
  if (backingFileOffset === 0) return [extensions]
  return [extensions, { start: backingFileOffset, length: backingFileSize }]
}

function withName(cluster: Buffer, name: Buffer | undefined, at: number): Buffer | undefined {
  if (name && at + name.length > cluster.length) return undefined
  name?.copy(cluster, at)
  cluster.writeBigUInt64BE(BigInt(name ? at : 0), FIELD.backingFileOffset)
  cluster.writeUInt32BE(name?.length ?? 0, FIELD.backingFileSize)
  return cluster
}
