import {
  EXT_BACKING_FORMAT,
  EXT_BITMAPS,
  EXT_DATA_FILE,
  EXT_END,
  EXT_FEATURE_NAMES,
  EXT_LUKS,
  MAX_BACKING_FORMAT,
} from './constants.ts'
import { badImage, cString, u64 } from './fields.ts'

/** One header extension as it stands in the image. */
export interface RawExtension {
  type: number
  data: Buffer
}

/** The name of a feature bit, which lets a program name a feature that it does not know. */
export interface FeatureName {
  /** 0 incompatible, 1 compatible, 2 autoclear. */
  kind: number
  bit: number
  name: string
}

/** Where the persistent bitmaps are. */
export interface BitmapsExtension {
  count: number
  /** Must be 0. */
  reserved: number
  /** Bytes. */
  directorySize: number
  directoryOffset: number
}

/** The header extensions of an image. */
export interface Extensions {
  /** Every extension in order, those that are decoded below and unknown ones. */
  all: RawExtension[]
  backingFormat?: string
  featureNames: FeatureName[]
  bitmaps?: BitmapsExtension
  /** Where the LUKS header is, bytes. */
  luks?: { offset: number; length: number }
  /** Name of the external data file. */
  dataFile?: string
}

/** A bound on what a hostile image makes us keep; programs write five at most. */
const MAX_EXTENSIONS = 1024
/** Bytes of an entry of the feature name table: kind u8, bit u8, name. */
const FEATURE_NAME_BYTES = 48

/**
 * Decodes the extension area (spec: "Header extensions"): type u32, length u32, data padded to 8
 * bytes. It ends at an end marker or where the area ends. Of an extension that comes twice the
 * later one wins, as in QEMU.
 * @param area the bytes from the end of the header to the backing name, or to the cluster's end
 * @throws BackupError BAD_IMAGE
 */
export function decodeExtensions(area: Buffer, path: string): Extensions {
  const extensions: Extensions = { all: [], featureNames: [] }
  let at = 0
  while (at + 8 <= area.length) {
    const type = area.readUInt32BE(at)
    const length = area.readUInt32BE(at + 4)
    if (type === EXT_END) break
    at += 8
    if (extensions.all.length === MAX_EXTENSIONS) {
      throw badImage(path, `more than ${MAX_EXTENSIONS} header extensions`)
    }
    if (length > area.length - at) throw badImage(path, 'a header extension is too large')
    const data = area.subarray(at, at + length)
    extensions.all.push({ type, data })
    decodeExtension(extensions, type, data, path)
    at += Math.ceil(length / 8) * 8
  }
  return extensions
}

function decodeExtension(into: Extensions, type: number, data: Buffer, path: string): void {
  switch (type) {
    case EXT_BACKING_FORMAT:
      if (data.length > MAX_BACKING_FORMAT) {
        throw badImage(
          path,
          `the backing format is ${data.length} bytes long, more than ${MAX_BACKING_FORMAT}`,
        )
      }
      into.backingFormat = cString(data)
      break
    case EXT_FEATURE_NAMES:
      into.featureNames = decodeFeatureNames(data)
      break
    case EXT_BITMAPS:
      requireLength(data, 24, 'bitmaps', path)
      into.bitmaps = {
        count: data.readUInt32BE(0),
        reserved: data.readUInt32BE(4),
        directorySize: u64(data, 8, 'bitmap directory size', path),
        directoryOffset: u64(data, 16, 'bitmap directory offset', path),
      }
      break
    case EXT_LUKS:
      requireLength(data, 16, 'encryption', path)
      into.luks = {
        offset: u64(data, 0, 'encryption header offset', path),
        length: u64(data, 8, 'encryption header length', path),
      }
      break
    case EXT_DATA_FILE:
      into.dataFile = cString(data)
      break
  }
}

function requireLength(data: Buffer, length: number, name: string, path: string): void {
  if (data.length !== length) {
    throw badImage(path, `the ${name} extension is ${data.length} bytes long, not ${length}`)
  }
}

function decodeFeatureNames(data: Buffer): FeatureName[] {
  const names: FeatureName[] = []
  for (let at = 0; at + FEATURE_NAME_BYTES <= data.length; at += FEATURE_NAME_BYTES) {
    const name = cString(data.subarray(at + 2, at + FEATURE_NAME_BYTES))
    names.push({ kind: data[at], bit: data[at + 1], name })
  }
  return names
}
