import { malformed } from '../format-error.ts'
import {
  BITMAPS,
  CRYPT_LUKS,
  EXT_BACKING_FORMAT,
  EXT_BITMAPS,
  EXT_DATA_FILE,
  EXT_END,
  EXT_FEATURE_NAMES,
  EXT_LUKS,
  MAX_BACKING_FORMAT,
} from './constants.ts'
import { cString, u64 } from './fields.ts'
import type { BitmapsExtension, Extensions, FeatureName, HeaderFields } from './header-fields.ts'
import { requireBitmaps } from './validate.ts'

/** Bounds the memory that a hostile image takes; programs write at most five. */
const MAX_EXTENSIONS = 1024
/** Bytes of an entry of the feature name table: kind u8, bit u8, name. */
const FEATURE_NAME_BYTES = 48

/** Header fields that the extensions depend on. */
type Fields = Pick<
  HeaderFields,
  'headerLength' | 'backingFileOffset' | 'clusterSize' | 'cryptMethod' | 'autoclearFeatures'
>

/**
 * Decodes the extension area (spec: "Header extensions"): type u32, length u32, data padded to 8
 * bytes. It goes from the end of the header to an end marker, to the backing name or to the end of
 * the cluster. Of an extension that comes twice the later one wins, as in QEMU.
 * @param cluster the first cluster; bytes that the file lacks are zero
 * @throws FormatError BAD_IMAGE
 */
export function decodeExtensions(cluster: Buffer, fields: Fields): Extensions {
  const extensions: Extensions = { all: [], featureNames: [] }
  addExtensions(extensions, cluster, fields)
  return extensions
}

/** The names of features, as far as they can be read; for a message. */
export function readFeatureNames(cluster: Buffer, fields: Fields): FeatureName[] {
  const extensions: Extensions = { all: [], featureNames: [] }
  try {
    addExtensions(extensions, cluster, fields)
  } catch {
    // Unknown features are reported first.
  }
  return extensions.featureNames
}

function addExtensions(into: Extensions, cluster: Buffer, fields: Fields): void {
  const end = fields.backingFileOffset || fields.clusterSize
  for (let at = fields.headerLength; at < end; ) {
    const [type, length] = headAt(cluster, at, end)
    at += 8
    if (length > end - at) {
      throw malformed('a header extension is too large', 'Header extension too large')
    }
    if (type === EXT_END) break
    if (into.all.length === MAX_EXTENSIONS) {
      throw malformed(`more than ${MAX_EXTENSIONS} header extensions`)
    }
    if (at + length > cluster.length) {
      throw malformed('a header extension reaches past the end of the file')
    }
    // A copy, so that the whole cluster is not kept for it.
    const data = Buffer.from(cluster.subarray(at, at + length))
    into.all.push({ type, data })
    addExtension(into, type, data, fields)
    at += Math.ceil(length / 8) * 8
  }
}

/** The type and length at `at`; past the end of the file both are 0, which ends the area. */
function headAt(cluster: Buffer, at: number, end: number): [type: number, length: number] {
  if (at + 8 > end) return [EXT_END, 1]
  if (at + 8 > cluster.length) return [EXT_END, 0]
  return [cluster.readUInt32BE(at), cluster.readUInt32BE(at + 4)]
}

function addExtension(into: Extensions, type: number, data: Buffer, fields: Fields): void {
  switch (type) {
    case EXT_BACKING_FORMAT:
      into.backingFormat = decodeBackingFormat(data)
      break
    case EXT_FEATURE_NAMES:
      into.featureNames = decodeFeatureNames(data)
      break
    case EXT_BITMAPS:
      into.bitmaps = decodeBitmaps(data, fields)
      break
    case EXT_LUKS:
      into.luks = decodeLuks(data, fields)
      break
    case EXT_DATA_FILE:
      into.dataFile = cString(data)
      break
  }
}

function decodeBackingFormat(data: Buffer): string {
  const { length } = data
  if (length > MAX_BACKING_FORMAT) {
    throw malformed(
      `the backing format is ${length} bytes long, more than ${MAX_BACKING_FORMAT}`,
      `ERROR: ext_backing_format: len=${length} too large (>=${MAX_BACKING_FORMAT + 1})`,
    )
  }
  return cString(data)
}

function decodeBitmaps(data: Buffer, fields: Fields): BitmapsExtension {
  const { length } = data
  if (length !== 24) {
    const why = `the bitmaps extension is ${length} bytes long, not 24`
    throw malformed(why, 'bitmaps_ext: Invalid extension length')
  }
  const bitmaps = {
    count: data.readUInt32BE(0),
    reserved: data.readUInt32BE(4),
    directorySize: u64(data, 8),
    directoryOffset: u64(data, 16),
  }
  // Without the flag the extension is out of date and is ignored.
  if ((fields.autoclearFeatures & BITMAPS) !== 0n) requireBitmaps(bitmaps, fields)
  return bitmaps
}

function decodeLuks(data: Buffer, fields: Fields): { offset: number; length: number } {
  const { length } = data
  if (fields.cryptMethod !== CRYPT_LUKS) {
    throw malformed(
      'has a LUKS header, but is not encrypted with LUKS',
      'CRYPTO header extension only expected with LUKS encryption method',
    )
  }
  if (length !== 16) {
    throw malformed(
      `the encryption extension is ${length} bytes long, not 16`,
      `CRYPTO header extension size ${length}, but expected size 16`,
    )
  }
  const offset = u64(data, 0)
  if (offset % fields.clusterSize !== 0) {
    throw malformed(
      'the LUKS header is not at the start of a cluster',
      `Encryption header offset '${data.readBigUInt64BE(0)}' is not a multiple of cluster size ` +
        `'${fields.clusterSize}'`,
    )
  }
  return { offset, length: u64(data, 8) }
}

function decodeFeatureNames(data: Buffer): FeatureName[] {
  const names: FeatureName[] = []
  for (let at = 0; at + 2 <= data.length; at += FEATURE_NAME_BYTES) {
    const name = cString(data.subarray(at + 2, at + FEATURE_NAME_BYTES))
    names.push({ kind: data[at], bit: data[at + 1], name })
  }
  return names
}
