import {
  BITMAPS,
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
import { badImage, quoted, unsupported } from './fields.ts'
import type { Qcow2Header } from './header.ts'

const KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | EXTERNAL_DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2

/**
 * Checks everything in a header that can be checked without reading further, as QEMU does on open.
 * The dirty and corrupt flags only forbid writing.
 * @throws BackupError UNSUPPORTED for a feature that cannot be read, else BAD_IMAGE
 */
export function validateHeader(header: Qcow2Header, path: string): void {
  // First, because an unknown feature may change the meaning of every other field.
  requireKnownFeatures(header, path)
  requireCompression(header, path)
  const subclusterSize = header.clusterSize / SUBCLUSTERS
  if (header.extendedL2 && subclusterSize < SECTOR_SIZE) {
    throw badImage(path, `unsupported subcluster size ${subclusterSize}`)
  }
  if (header.refcountOrder > 6) throw badImage(path, 'refcount entries are wider than 64 bits')
  requireEncryption(header, path)
  requireTables(header, path)
  requireDataFile(header, path)
  requireBitmaps(header, path)
}

/**
 * Refuses encrypted images, which can be described but not read.
 * @throws BackupError UNSUPPORTED
 */
export function requireUnencrypted(header: Qcow2Header, path: string): void {
  if (header.cryptMethod === CRYPT_AES) throw unsupported(path, 'encrypted with AES')
  if (header.cryptMethod === CRYPT_LUKS) throw unsupported(path, 'encrypted with LUKS')
}

/** Guest bytes that one L2 table maps. */
export function l2Coverage(header: Pick<Qcow2Header, 'clusterSize' | 'extendedL2'>): number {
  return (header.clusterSize / (header.extendedL2 ? 16 : 8)) * header.clusterSize
}

function requireKnownFeatures(header: Qcow2Header, path: string): void {
  const unknown = header.incompatibleFeatures & ~KNOWN_INCOMPATIBLE
  if (unknown === 0n) return
  const names: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if (((unknown >> BigInt(bit)) & 1n) === 0n) continue
    const known = header.extensions.featureNames.find((f) => f.kind === 0 && f.bit === bit)
    names.push(known ? quoted(known.name) : `incompatible feature bit ${bit}`)
  }
  throw unsupported(path, `unsupported qcow2 features: ${names.join(', ')}`)
}

function requireCompression(header: Qcow2Header, path: string): void {
  const { compressionType } = header
  if (compressionType > 1) throw unsupported(path, `unknown compression type ${compressionType}`)
  const flagged = (header.incompatibleFeatures & COMPRESSION_TYPE) !== 0n
  if (flagged !== (compressionType !== 0)) {
    const must = flagged ? 'must not be' : 'must be'
    throw badImage(
      path,
      `compression type ${compressionType}: its incompatible feature bit ${must} set`,
    )
  }
}

function requireEncryption(header: Qcow2Header, path: string): void {
  if (header.cryptMethod > CRYPT_LUKS) {
    throw unsupported(path, `unsupported encryption method ${header.cryptMethod}`)
  }
  const { luks } = header.extensions
  if (header.cryptMethod === CRYPT_LUKS) {
    if (!luks) throw badImage(path, 'encrypted with LUKS, but the LUKS header is not recorded')
    if (luks.offset % header.clusterSize !== 0) {
      throw badImage(path, 'the LUKS header is not at the start of a cluster')
    }
  } else if (luks) {
    throw badImage(path, 'has a LUKS header, but is not encrypted with LUKS')
  }
}

function requireTables(header: Qcow2Header, path: string): void {
  const { clusterSize, refcountTableClusters, nbSnapshots, l1Size } = header
  const l1Needed = Math.ceil(header.virtualSize / l2Coverage(header))
  if (l1Needed > 0x7fffffff) throw badImage(path, 'image is too big')

  if (refcountTableClusters === 0) throw badImage(path, 'image has no refcount table')
  if (refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
    throw badImage(path, 'refcount table too large')
  }
  requireAligned(header.refcountTableOffset, header, 'refcount table', path)

  if (nbSnapshots > MAX_SNAPSHOTS) throw badImage(path, 'snapshot table too large')
  requireAligned(header.snapshotsOffset, header, 'snapshot table', path)

  if (l1Size * 8 > MAX_L1_BYTES) throw badImage(path, 'active L1 table too large')
  requireAligned(header.l1TableOffset, header, 'active L1 table', path)
  if (l1Size < l1Needed) throw badImage(path, 'L1 table is too small')
  // The first cluster is the header's; QEMU would read the header as a table.
  if (l1Size > 0 && header.l1TableOffset === 0) {
    throw badImage(path, 'active L1 table lies over the header')
  }
}

function requireAligned(offset: number, header: Qcow2Header, name: string, path: string): void {
  if (offset % header.clusterSize !== 0) throw badImage(path, `${name} offset invalid`)
}

function requireDataFile(header: Qcow2Header, path: string): void {
  if (header.externalDataFile && !header.extensions.dataFile) {
    throw badImage(path, 'its data is in another file, but the name of that is not recorded')
  }
  if (header.dataFileRaw && !header.externalDataFile) {
    throw badImage(path, 'data-file-raw requires a data file')
  }
}

function requireBitmaps(header: Qcow2Header, path: string): void {
  const { bitmaps } = header.extensions
  // Without the flag the extension is out of date and is not looked at.
  if (!bitmaps || (header.autoclearFeatures & BITMAPS) === 0n) return
  if (bitmaps.reserved !== 0) throw badImage(path, 'bitmaps extension: reserved field is not zero')
  if (bitmaps.count === 0) throw badImage(path, 'bitmaps extension with zero bitmaps')
  if (bitmaps.count > MAX_BITMAPS) throw badImage(path, `${bitmaps.count} bitmaps are too many`)
  requireAligned(bitmaps.directoryOffset, header, 'bitmap directory', path)
  if (bitmaps.directorySize > MAX_BITMAP_DIRECTORY_BYTES) {
    throw badImage(path, 'bitmap directory too large')
  }
}
