import { quoted } from '../../text.ts'
import { type FormatError, malformed, notSupported } from '../format-error.ts'
import {
  COMPRESSION_TYPE,
  CORRUPT,
  CRYPT_AES,
  CRYPT_LUKS,
  DIRTY,
  EXTENDED_L2,
  EXTERNAL_DATA_FILE,
  MAX_BITMAP_DIRECTORY_BYTES,
  MAX_BITMAPS,
  MAX_L1_BYTES,
  MAX_REFCOUNT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  SECTOR_SIZE,
  SUBCLUSTERS,
} from './constants.ts'
import type {
  BitmapsExtension,
  Extensions,
  FeatureName,
  HeaderFields,
  Qcow2Header,
} from './header-fields.ts'

const KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | EXTERNAL_DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2

/** Minimum bytes of an entry of the snapshot table. */
const SNAPSHOT_BYTES = 40
/** No file reaches to here: offsets are signed for the system. */
export const END_OF_FILES = 2 ** 63

/**
 * Checks that the features of an image, and with them the meaning of every other field, are known.
 * @param names those that the image has for its features
 * @throws FormatError UNSUPPORTED, BAD_IMAGE
 */
export function requireFeatures(fields: HeaderFields, names: () => FeatureName[]): void {
  requireCompression(fields)
  const unknown = fields.incompatibleFeatures & ~KNOWN_INCOMPATIBLE
  if (unknown !== 0n) throw unknownFeatures(unknown, names())
  const subclusterSize = fields.clusterSize / SUBCLUSTERS
  if (fields.extendedL2 && subclusterSize < SECTOR_SIZE) {
    const why = 'subcluster size'
    throw malformed(`unsupported ${why} ${subclusterSize}`, `Unsupported ${why}: ${subclusterSize}`)
  }
  if (fields.refcountOrder > 6) {
    throw malformed(
      'refcount entries are wider than 64 bits',
      'Reference count entry width too large; may not exceed 64 bits',
    )
  }
}

/**
 * Checks where the tables of an image are said to be.
 * @param checking faults that a check reports or repairs are accepted
 * @throws FormatError BAD_IMAGE
 */
export function requireTables(fields: HeaderFields, checking = false): void {
  const { clusterSize, refcountTableClusters, nbSnapshots } = fields
  if (refcountTableClusters === 0 && !checking) {
    throw malformed('image has no refcount table', 'Image does not contain a reference count table')
  }
  if (refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
    throw malformed('refcount table too large', 'Reference count table too large')
  }
  requireAligned(
    fields.refcountTableOffset,
    refcountTableClusters * clusterSize,
    fields,
    'refcount table',
    'Reference count table offset invalid',
  )

  if (!checking) {
    if (nbSnapshots > MAX_SNAPSHOTS) {
      throw malformed('snapshot table too large', 'Snapshot table too large')
    }
    requireAligned(
      fields.snapshotsOffset,
      nbSnapshots * SNAPSHOT_BYTES,
      fields,
      'snapshot table',
      'Snapshot table offset invalid',
    )
  }

  requireL1(fields, 'active L1 table')
}

/**
 * Checks where the L1 table of an internal snapshot is said to be, and that it is large enough for
 * the disk of that time.
 * @param fields of the image, with the table and the size of the snapshot
 * @throws FormatError BAD_IMAGE, UNSUPPORTED
 */
export function requireSnapshotTable(fields: HeaderFields): void {
  requireL1(fields, 'snapshot L1 table')
  requireTableBehindHeader(fields, 'snapshot L1 table')
}

function requireL1(fields: HeaderFields, name: string): void {
  const { l1Size, l1TableOffset, size } = fields
  const capital = name[0].toUpperCase() + name.slice(1)
  if (l1Size * 8 > MAX_L1_BYTES) throw malformed(`${name} too large`, `${capital} too large`)
  requireAligned(l1TableOffset, l1Size * 8, fields, name, `${capital} offset invalid`)
  const l1Needed = Math.ceil(size / l2Coverage(fields))
  if (l1Needed > 0x7fffffff) throw malformed('image is too big', 'Image is too big')
  if (l1Size < l1Needed) throw malformed('L1 table is too small')
  if (!Number.isSafeInteger(size)) throw notSupported('image is larger than 8 PiB')
}

/** @throws FormatError UNSUPPORTED for a method of encryption that does not exist */
export function requireKnownEncryption({ cryptMethod }: HeaderFields): void {
  if (cryptMethod <= CRYPT_LUKS) return
  const why = `encryption method ${cryptMethod}`
  // QEMU prints it with a sign.
  throw notSupported(`unsupported ${why}`, `Unsupported encryption method ${cryptMethod | 0}`)
}

/** @throws FormatError BAD_IMAGE if an image encrypted with LUKS has no pointer to its header */
export function requireLuksHeader({ cryptMethod }: HeaderFields, { luks }: Extensions): void {
  if (cryptMethod !== CRYPT_LUKS || luks) return
  const why = 'encrypted with LUKS, but the LUKS header is not recorded'
  throw malformed(why, `Missing CRYPTO header for crypt method ${CRYPT_LUKS}`)
}

/**
 * Checks the bitmaps extension if it is current.
 * @throws FormatError BAD_IMAGE
 */
export function requireBitmaps(
  bitmaps: BitmapsExtension,
  fields: Pick<HeaderFields, 'clusterSize'>,
): void {
  const { count, directorySize } = bitmaps
  if (bitmaps.reserved !== 0) {
    throw malformed(
      'bitmaps extension: reserved field is not zero',
      'bitmaps_ext: Reserved field is not zero',
    )
  }
  if (count > MAX_BITMAPS) {
    throw malformed(
      `${count} bitmaps are too many`,
      `bitmaps_ext: Image has ${count} bitmaps, exceeding the QEMU supported maximum of ${MAX_BITMAPS}`,
    )
  }
  if (count === 0) {
    const why = 'bitmaps extension with zero bitmaps'
    throw malformed(why, `found ${why}`)
  }
  requireAligned(
    bitmaps.directoryOffset,
    directorySize,
    fields,
    'bitmap directory',
    'bitmaps_ext: invalid bitmap directory offset',
  )
  if (directorySize > MAX_BITMAP_DIRECTORY_BYTES) {
    throw malformed(
      'bitmap directory too large',
      `bitmaps_ext: bitmap directory size (${directorySize}) exceeds the maximum supported size ` +
        `(${MAX_BITMAP_DIRECTORY_BYTES})`,
    )
  }
}

/**
 * Checks that an image can be read, not only described: that it is not encrypted, and
 * that its data is somewhere.
 * @throws FormatError UNSUPPORTED, BAD_IMAGE
 */
export function requireReadable(header: Qcow2Header): void {
  requireDataFile(header)
  const qemu = "Parameter 'encrypt.key-secret' is required for cipher"
  if (header.cryptMethod === CRYPT_AES) throw notSupported('encrypted with AES', qemu)
  if (header.cryptMethod === CRYPT_LUKS) throw notSupported('encrypted with LUKS', qemu)
}

/**
 * Checks that the L1 table of an image is somewhere.
 * @throws FormatError BAD_IMAGE
 */
export function requireActiveTable(header: Qcow2Header): void {
  requireTableBehindHeader(header, 'active L1 table')
}

function requireTableBehindHeader({ l1Size, l1TableOffset }: HeaderFields, name: string): void {
  // The first cluster is the header's; QEMU would read the header as a table.
  if (l1Size > 0 && l1TableOffset === 0) throw malformed(`${name} lies over the header`)
}

/**
 * Checks that the data of an image is where its flags say.
 * @throws FormatError BAD_IMAGE
 */
function requireDataFile(header: Qcow2Header): void {
  if (header.externalDataFile && header.extensions.dataFile === undefined) {
    const why = 'its data is in another file, but the name of that is not recorded'
    throw malformed(why, "'data-file' is required for this image")
  }
  if (header.dataFileRaw && !header.externalDataFile) {
    const why = 'data-file-raw requires a data file'
    throw malformed(why, why)
  }
}

/** Guest bytes that one L2 table maps. */
export function l2Coverage(header: Pick<HeaderFields, 'clusterSize' | 'extendedL2'>): number {
  return (header.clusterSize / (header.extendedL2 ? 16 : 8)) * header.clusterSize
}

function requireCompression(fields: HeaderFields): void {
  const { compressionType } = fields
  if (compressionType > 1) {
    const why = 'unknown compression type'
    const type = compressionType
    throw notSupported(`${why} ${type}`, `qcow2: ${why}: ${type}`)
  }
  const flagged = (fields.incompatibleFeatures & COMPRESSION_TYPE) !== 0n
  if (flagged !== (compressionType !== 0)) {
    const must = flagged ? 'must not be set' : 'must be set'
    throw malformed(
      `compression type ${compressionType}: its incompatible feature bit ${must}`,
      `qcow2: Compression type incompatible feature bit ${must}`,
    )
  }
}

function unknownFeatures(unknown: bigint, names: readonly FeatureName[]): FormatError {
  const has = (bits: bigint, bit: number) => ((bits >> BigInt(bit)) & 1n) !== 0n
  const named = names.filter(
    ({ kind, bit, name }) => kind === 0 && name !== '' && has(unknown, bit),
  )
  const ours: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if (!has(unknown, bit)) continue
    const known = named.find((feature) => feature.bit === bit)
    ours.push(known ? quoted(known.name) : `incompatible feature bit ${bit}`)
  }
  // QEMU uses the feature name table, and shows unnamed features as one number.
  let rest = unknown
  const qemu: string[] = []
  for (const { bit, name } of named) {
    if (has(rest, bit)) qemu.push(name)
    rest &= ~(1n << BigInt(bit))
  }
  if (rest !== 0n) qemu.push(`Unknown incompatible feature: ${rest.toString(16)}`)
  return notSupported(
    `unsupported qcow2 features: ${ours.join(', ')}`,
    `Unsupported qcow2 feature(s): ${qemu.join(', ')}`,
  )
}

/**
 * @param bytes of the table
 * @param qemu QEMU's message
 */
function requireAligned(
  offset: number,
  bytes: number,
  { clusterSize }: Pick<HeaderFields, 'clusterSize'>,
  name: string,
  qemu: string,
): void {
  if (offset % clusterSize === 0 && offset + bytes < END_OF_FILES) return
  throw malformed(`${name} offset invalid`, qemu)
}
