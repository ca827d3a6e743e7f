/**
 * Recognises the content of a file or device by its first and last bytes, so that a disk is not
 * mistaken for an image that may be overwritten. A table of our own, not libblkid or `blkid -p`: it
 * reads the descriptor that will be written to, needs no program in a container and no device node,
 * and only has to know that there is something, not its label.
 */
import type { FileHandle } from '../files.ts'

interface Signature {
  name: string
  /** Bytes from the start; from the end if negative. */
  at: number
  magic: string | Buffer
}

const PAGE_SIZES = [4096, 8192, 16384, 65536]
/** md's superblock, 0xa92b4efc, little-endian. */
const MD = Buffer.from('fc4e2ba9', 'hex')

/** Offsets and magics as each format's own headers define them. */
const SIGNATURES: readonly Signature[] = [
  // A GPT may start at sector 1 of 512 or of 4096 bytes, and has a copy in the last sector.
  ...[512, 4096, -512, -4096].map((at) => ({ name: 'a GPT', at, magic: 'EFI PART' })),
  { name: 'a LUKS volume', at: 0, magic: Buffer.from('4c554b53babe', 'hex') },
  { name: 'a LUKS volume', at: 16384, magic: Buffer.from('534b554cbabe', 'hex') },
  ...[0, 512, 1024, 1536].map((at) => ({
    name: 'an LVM physical volume',
    at,
    magic: 'LABELONE',
  })),
  { name: 'an XFS file system', at: 0, magic: 'XFSB' },
  { name: 'an ext2, ext3 or ext4 file system', at: 1080, magic: Buffer.from('53ef', 'hex') },
  { name: 'a Btrfs file system', at: 65600, magic: '_BHRfS_M' },
  { name: 'an F2FS file system', at: 1024, magic: Buffer.from('1020f5f2', 'hex') },
  { name: 'an NTFS file system', at: 3, magic: 'NTFS    ' },
  { name: 'an exFAT file system', at: 3, magic: 'EXFAT   ' },
  { name: 'a FAT file system', at: 54, magic: 'FAT' },
  { name: 'a FAT file system', at: 82, magic: 'FAT32' },
  { name: 'a ReiserFS file system', at: 65588, magic: 'ReIsEr' },
  { name: 'a JFS file system', at: 32768, magic: 'JFS1' },
  { name: 'an ISO 9660 file system', at: 32769, magic: 'CD001' },
  { name: 'a UDF file system', at: 32769, magic: 'BEA01' },
  { name: 'a UDF file system', at: 34817, magic: 'NSR0' },
  { name: 'a SquashFS file system', at: 0, magic: 'hsqs' },
  { name: 'an EROFS file system', at: 1024, magic: Buffer.from('e2e1f5e0', 'hex') },
  { name: 'a VMFS volume', at: 1048576, magic: Buffer.from('0dd001c0', 'hex') },
  { name: 'a bcache device', at: 4120, magic: Buffer.from('c68573f64e1a45ca', 'hex') },
  { name: 'a Ceph BlueStore volume', at: 0, magic: 'bluestore block device' },
  // The uberblocks of the first label, whichever of them are in use: see zfs().
  ...PAGE_SIZES.flatMap((page) => [
    { name: 'swap space', at: page - 10, magic: 'SWAPSPACE2' },
    { name: 'swap space', at: page - 10, magic: 'SWAP-SPACE' },
  ]),
  { name: 'an md RAID member', at: 0, magic: MD },
  { name: 'an md RAID member', at: 4096, magic: MD },
  // Last, since the boot sectors of file systems bear it too.
  { name: 'an MBR partition table', at: 510, magic: Buffer.from('55aa', 'hex') },
]

const KIB = 1024

/**
 * Names the content of a disk that is not an image: a partition table, a file system, a volume.
 * @param size of the file or device, bytes
 * @returns undefined if nothing is known to be there
 * @throws errors of the system calls
 */
export async function foreignSignature(
  handle: FileHandle,
  size: number,
): Promise<string | undefined> {
  for (const { name, at, magic } of [...SIGNATURES, ...mdAtTheEnd(size)]) {
    const start = at < 0 ? size + at : at
    const wanted = Buffer.from(magic)
    if (start < 0 || start + wanted.length > size) continue
    if ((await read(handle, start, wanted.length)).equals(wanted)) return name
  }
  return await zfs(handle, size)
}

/** Versions 0.90 and 1.0 of md's superblock. */
function mdAtTheEnd(size: number): Signature[] {
  const old = size - (size % (64 * KIB)) - 64 * KIB
  const sectors = Math.floor(size / 512)
  const one = (sectors - 16 - ((sectors - 16) % 8)) * 512
  return [old, one]
    .filter((at) => at >= 0)
    .map((at) => ({ name: 'an md RAID member', at, magic: MD }))
}

/** A ring of 128 uberblocks of 1 KiB; which of them are in use depends on the pool's history. */
async function zfs(handle: FileHandle, size: number): Promise<string | undefined> {
  const ring = await read(handle, 128 * KIB, Math.min(128 * KIB, Math.max(0, size - 128 * KIB)))
  for (let at = 0; at + 8 <= ring.length; at += KIB) {
    const isUberblock =
      ring.readBigUInt64LE(at) === 0x00bab10cn || ring.readBigUInt64BE(at) === 0x00bab10cn
    if (isUberblock) return 'a ZFS pool'
  }
  return undefined
}

async function read(handle: FileHandle, at: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, at)
  return buffer.subarray(0, bytesRead)
}
