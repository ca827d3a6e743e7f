/** Numbers of the qcow2 format (docs/interop/qcow2.txt in QEMU) and QEMU's limits on them. */

/** "QFI" and 0xfb, the first four bytes of every image. */
export const MAGIC = 0x514649fb

/** Bytes of a version 2 header; minimum and usual bytes of a version 3 header. */
export const V2_HEADER_LENGTH = 72
export const V3_HEADER_MIN_LENGTH = 104
export const V3_HEADER_LENGTH = 112

/** Byte offsets of the header fields (spec: "Header"). */
export const FIELD = {
  version: 4,
  backingFileOffset: 8,
  backingFileSize: 16,
  clusterBits: 20,
  size: 24,
  cryptMethod: 32,
  l1Size: 36,
  l1TableOffset: 40,
  refcountTableOffset: 48,
  refcountTableClusters: 56,
  nbSnapshots: 60,
  snapshotsOffset: 64,
  incompatibleFeatures: 72,
  compatibleFeatures: 80,
  autoclearFeatures: 88,
  refcountOrder: 96,
  headerLength: 100,
  /** Only in a header that is long enough. */
  compressionType: 104,
} as const

export const MIN_CLUSTER_BITS = 9
export const MAX_CLUSTER_BITS = 21
export const MAX_CLUSTER_SIZE = 2 ** MAX_CLUSTER_BITS
/** Guest bytes are accounted in these; a virtual size is rounded down to them. */
export const SECTOR_SIZE = 512
/** Subclusters per cluster with extended L2 entries. */
export const SUBCLUSTERS = 32

/** Incompatible features: an image with any other bit cannot be read. */
export const DIRTY = 1n << 0n
export const CORRUPT = 1n << 1n
export const EXTERNAL_DATA_FILE = 1n << 2n
export const COMPRESSION_TYPE = 1n << 3n
export const EXTENDED_L2 = 1n << 4n
/** Compatible features: an image with any bit can be read. */
export const LAZY_REFCOUNTS = 1n << 0n
/** Autoclear features. */
export const BITMAPS = 1n << 0n
export const DATA_FILE_RAW = 1n << 1n

/** Header extension types. */
export const EXT_END = 0
export const EXT_BACKING_FORMAT = 0xe2792aca
export const EXT_FEATURE_NAMES = 0x6803f857
export const EXT_BITMAPS = 0x23852875
export const EXT_LUKS = 0x0537be77
export const EXT_DATA_FILE = 0x44415441

/** Encryption methods. */
export const CRYPT_AES = 1
export const CRYPT_LUKS = 2

/** QEMU's limits; they bound our allocations, too. */
export const MAX_BACKING_NAME = 1023
export const MAX_BACKING_FORMAT = 15
export const MAX_L1_BYTES = 32 * 2 ** 20
export const MAX_REFCOUNT_TABLE_BYTES = 8 * 2 ** 20
export const MAX_SNAPSHOTS = 65536
export const MAX_BITMAPS = 65535
export const MAX_BITMAP_DIRECTORY_BYTES = 1024 * MAX_BITMAPS
export const MAX_BITMAP_NAME = 1023
/** Bytes of an entry of the bitmap directory with the longest name. */
export const MAX_DIRECTORY_ENTRY = 24 + 1024
export const MIN_GRANULARITY_BITS = 9
export const MAX_GRANULARITY_BITS = 31
/** Bytes of the bits of one bitmap, in whole clusters. */
export const MAX_BITMAP_BYTES = 512 * 2 ** 20
