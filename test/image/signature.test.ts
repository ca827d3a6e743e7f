import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openFile } from '../../lib/image/file.ts'
import { foreignSignature } from '../../lib/image/signature.ts'
import { noise } from '../support/disks.ts'
import { run } from '../support/qemu.ts'

t.setTimeout(180_000)

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 2 * MIB

/** A value in little-endian order. */
function le(value: bigint | number, bytes: 4 | 8): string {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer.subarray(0, bytes).toString('hex')
}

const hex = (text: string) => Buffer.from(text, 'latin1').toString('hex')

/** Where the documents on each format put what it is known by; negative: from the end. */
const BY_BYTES: [name: string, at: number, bytes: string][] = [
  ['a GPT', 512, hex('EFI PART')],
  ['a GPT', 4096, hex('EFI PART')],
  ['a GPT', -512, hex('EFI PART')],
  ['a GPT', -4096, hex('EFI PART')],
  ['a LUKS volume', 0, `${hex('LUKS')}babe`],
  ['a LUKS volume', 16 * KIB, `${hex('SKUL')}babe`],
  ...[0, 1, 2, 3].map(
    (sector) =>
      ['an LVM physical volume', sector * 512, hex('LABELONE')] as [string, number, string],
  ),
  ['an XFS file system', 0, hex('XFSB')],
  // s_magic, 0xef53, 56 bytes into the superblock at 1024.
  ['an ext2, ext3 or ext4 file system', 1024 + 56, '53ef'],
  ['a Btrfs file system', 64 * KIB + 64, hex('_BHRfS_M')],
  ['an F2FS file system', 1024, le(0xf2f52010, 4)],
  ['an NTFS file system', 3, hex('NTFS    ')],
  ['an exFAT file system', 3, hex('EXFAT   ')],
  ['a FAT file system', 54, hex('FAT12   ')],
  ['a FAT file system', 54, hex('FAT16   ')],
  ['a FAT file system', 82, hex('FAT32   ')],
  ['a ReiserFS file system', 64 * KIB + 52, hex('ReIsErFs')],
  ['a ReiserFS file system', 64 * KIB + 52, hex('ReIsEr2Fs')],
  ['a JFS file system', 32 * KIB, hex('JFS1')],
  ['an ISO 9660 file system', 32 * KIB + 1, hex('CD001')],
  ['a UDF file system', 32 * KIB + 1, hex('BEA01')],
  ['a UDF file system', 34 * KIB + 1, hex('NSR02')],
  ['a UDF file system', 34 * KIB + 1, hex('NSR03')],
  ['a SquashFS file system', 0, hex('hsqs')],
  ['an EROFS file system', 1024, le(0xe0f5e1e2, 4)],
  ['a VMFS volume', MIB, le(0xc001d00d, 4)],
  ['a bcache device', 4096 + 24, 'c68573f64e1a45ca8265f57f48ba6d81'],
  ['a Ceph BlueStore volume', 0, hex('bluestore block device\n')],
  ...[4, 8, 16, 64].flatMap((page) =>
    ['SWAPSPACE2', 'SWAP-SPACE'].map(
      (magic) => ['swap space', page * KIB - 10, hex(magic)] as [string, number, string],
    ),
  ),
  // Versions 1.1, 1.2, 1.0 and 0.90.
  ['an md RAID member', 0, le(0xa92b4efc, 4)],
  ['an md RAID member', 4 * KIB, le(0xa92b4efc, 4)],
  ['an md RAID member', -8 * KIB, le(0xa92b4efc, 4)],
  ['an md RAID member', -64 * KIB, le(0xa92b4efc, 4)],
  ['an MBR partition table', 510, '55aa'],
  // Uberblocks, of either byte order, anywhere in the ring.
  ['a ZFS pool', 128 * KIB, le(0x00bab10c, 8)],
  ['a ZFS pool', 128 * KIB + 57 * KIB, le(0x00bab10c, 8)],
  ['a ZFS pool', 255 * KIB, '0000000000bab10c'],
]

async function signatureOf(path: string): Promise<string | undefined> {
  const file = await openFile(path)
  try {
    return await foreignSignature(file.handle, file.size)
  } finally {
    await file.handle.close()
  }
}

function place(test: Test, at: number, bytes: string, size = SIZE): string {
  const path = join(test.testdirName, 'disk')
  const content = Buffer.alloc(size)
  Buffer.from(bytes, 'hex').copy(content, at < 0 ? size + at : at)
  writeFileSync(path, content)
  return path
}

t.test('each signature, where its format has it and nowhere else', async (t) => {
  t.testdir()
  for (const [name, at, bytes] of BY_BYTES) {
    const told = `${name} at ${at}`
    t.equal(await signatureOf(place(t, at, bytes)), name, told)
    const elsewhere = place(t, at < 0 ? at - 3 * KIB - 8 : at + 300_001, bytes)
    t.equal(await signatureOf(elsewhere), undefined, `${told}: not elsewhere`)
    // One bit of it is another.
    const first = Number.parseInt(bytes.slice(0, 2), 16) ^ 1
    const other = first.toString(16).padStart(2, '0') + bytes.slice(2)
    t.not(await signatureOf(place(t, at, other)), name, `${told}: no other bytes`)
    if (at < 0) continue
    // A disk that ends within it.
    const short = place(t, at, bytes, Math.floor((at + 1) / 1))
    t.equal(await signatureOf(short), undefined, `${told}: not cut off`)
  }
})

t.test('unknown content and empty devices have no signature', async (t) => {
  const path = join(t.testdir(), 'disk')
  for (const size of [0, 1, 511, 512, 4096, SIZE]) {
    writeFileSync(path, Buffer.alloc(size))
    t.equal(await signatureOf(path), undefined, `${size} zeroes`)
    writeFileSync(path, noise(size, 5))
    t.equal(await signatureOf(path), undefined, `${size} bytes of noise`)
  }
})

/** Else cryptsetup would measure how fast the machine is, which fails on a busy one. */
const NO_BENCHMARK = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000']

t.test('signatures of what real tools make are recognised', async (t) => {
  const tools: [name: string, ...command: string[]][] = [
    ['an ext2, ext3 or ext4 file system', 'mkfs.ext4', '-q', '-F'],
    ['an ext2, ext3 or ext4 file system', 'mkfs.ext2', '-q', '-F'],
    ['an XFS file system', 'mkfs.xfs', '-q', '-f'],
    ['swap space', 'mkswap'],
    ['a Btrfs file system', 'mkfs.btrfs', '-q', '-f'],
    ['a FAT file system', 'mkfs.vfat'],
    ['an F2FS file system', 'mkfs.f2fs', '-q', '-f'],
    [
      'a LUKS volume',
      'cryptsetup',
      'luksFormat',
      '-q',
      ...NO_BENCHMARK,
      '--key-file',
      '/proc/self/exe',
    ],
    ['a GPT', 'parted', '-s', '--', 'mklabel', 'gpt'],
  ]
  const path = join(t.testdir(), 'disk')
  let made = 0
  for (const [name, tool, ...args] of tools) {
    if (run('which', [tool]).status !== 0) continue
    writeFileSync(path, '')
    truncateSync(path, 512 * MIB)
    const separator = args.indexOf('--')
    const command = separator < 0 ? [...args, path] : [...args.toSpliced(separator, 1, path)]
    const { status, stderr } = run(tool, command)
    t.equal(status, 0, `${tool}: ${stderr}`)
    t.equal(await signatureOf(path), name, tool)
    made++
  }
  t.ok(made >= 3, 'those of e2fsprogs, xfsprogs and util-linux are here')
})

t.test('an MBR with partitions is told, a boot sector of a file system by its name', async (t) => {
  t.testdir()
  const path = place(t, 510, '55aa')
  const content = readFileSync(path)
  Buffer.from('80202100830d0d0000080000', 'hex').copy(content, 446)
  writeFileSync(path, content)
  t.equal(await signatureOf(path), 'an MBR partition table')
  Buffer.from('NTFS    ').copy(content, 3)
  writeFileSync(path, content)
  t.equal(await signatureOf(path), 'an NTFS file system')
})
