/** The fields of a qcow2 header, in the spec's order and by its names. Offsets, sizes are bytes. */
export interface HeaderFields {
  version: number
  backingFileOffset: number
  backingFileSize: number
  clusterBits: number
  /** The raw value; the guest sees `virtualSize`. */
  size: number
  /** 0 none, 1 AES, 2 LUKS. */
  cryptMethod: number
  /** Entries of the active L1 table. */
  l1Size: number
  l1TableOffset: number
  refcountTableOffset: number
  refcountTableClusters: number
  nbSnapshots: number
  snapshotsOffset: number
  incompatibleFeatures: bigint
  compatibleFeatures: bigint
  autoclearFeatures: bigint
  /** A refcount is 2^refcountOrder bits wide. */
  refcountOrder: number
  headerLength: number
  /** 0 deflate, 1 zstd. */
  compressionType: number

  /** Derived: 2^clusterBits. */
  clusterSize: number
  /** Derived: the size a guest sees. Rounded down to sectors, as in QEMU. */
  virtualSize: number
  /** Derived: L2 entries are 128 bits wide and know 32 subclusters. */
  extendedL2: boolean
  /** Derived: guest data is in another file. */
  externalDataFile: boolean
  /** Derived: the external data file is readable as a raw image. */
  dataFileRaw: boolean
}

/** A qcow2 header with all that belongs to it. */
export interface Qcow2Header extends HeaderFields {
  extensions: Extensions
  /** The backing file's name in the image. Must not be followed without the gate. */
  backingFile?: string
}

/** One raw header extension. */
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
