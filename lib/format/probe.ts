/**
 * Probes the format of a file that the user named without one. A backing file
 * is never probed: a raw one's first bytes belong to the guest, who could write a header there that
 * names any file of the host.
 */
import { MAGIC, SECTOR_SIZE } from './qcow2/constants.ts'

/** Bytes at the start, and at the end, of a file that identify its format. */
export const PROBE_BYTES = SECTOR_SIZE

/** A format that is not read here. */
export interface ForeignFormat {
  /** As a message names it: `a VMDK image`. */
  readonly name: string
  /** QEMU's name of it, if QEMU reads it. */
  readonly driver?: string
}

/** A probed format: `luks` and `empty` are raw, with a note about them. */
export type ProbedFormat = 'qcow2' | 'raw' | 'luks' | 'empty' | ForeignFormat

/** Bytes that a format has at an offset; one past the end of the file is counted from there. */
interface Magic {
  readonly bytes: Buffer
  readonly at: number
}

interface Signature extends ForeignFormat {
  readonly magics: readonly Magic[]
  /** QEMU recognises it too, by these bytes. */
  readonly probedByQemu: boolean
}

const VERSION_AT = 4
const LUKS = latin1('LUKS\xba\xbe')
const TAIL = -SECTOR_SIZE

const FOREIGN: readonly Signature[] = [
  image('VMDK', 'vmdk', [latin1('KDMV')]),
  image('VMDK', 'vmdk', [latin1('COWD')]),
  unprobed('a VMDK image', 'vmdk', [latin1('# Disk DescriptorFile')]),
  unprobed('a VMDK image', 'vmdk', [latin1('\xbe\xba\xfe\xca\0\0\0\0')]),
  image('VDI', 'vdi', [latin1('\x7f\x10\xda\xbe'), 64]),
  image('VHDX', 'vhdx', [latin1('vhdxfile')]),
  image('VHD', 'vpc', [latin1('conectix')]),
  // Of a fixed VHD, which is a raw disk followed by this footer; the first versions wrote 511 bytes.
  unprobed('a VHD image', 'vpc', [latin1('conectix'), TAIL]),
  unprobed('a VHD image', 'vpc', [latin1('conectix'), TAIL + 1]),
  image('QED', 'qed', [latin1('QED\0')]),
  image('Parallels', 'parallels', [latin1('WithoutFreeSpace')]),
  image('Parallels', 'parallels', [latin1('WithouFreSpacExt')]),
  image(
    'Bochs',
    'bochs',
    [latin1('Bochs Virtual HD Image\0')],
    [latin1('Redolog\0'), 32],
    [latin1('Growing\0'), 48],
  ),
  image('cloop', 'cloop', [
    latin1(
      '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n',
    ),
  ]),
  unprobed('a DMG image', 'dmg', [latin1('koly'), TAIL]),
  unprobed('a file compressed with gzip', undefined, [latin1('\x1f\x8b\x08')]),
  unprobed('a file compressed with xz', undefined, [latin1('\xfd7zXZ\0')]),
  unprobed('a file compressed with bzip2', undefined, [latin1('BZh')], [latin1('1AY&SY'), 4]),
  unprobed('a file compressed with zstd', undefined, [latin1('\x28\xb5\x2f\xfd')]),
  unprobed('a file compressed with lz4', undefined, [latin1('\x04\x22\x4d\x18')]),
  unprobed('a file compressed with lz4', undefined, [latin1('\x02\x21\x4c\x18')]),
  unprobed('a file compressed with lzop', undefined, [latin1('\x89LZO\0\r\n\x1a\n')]),
  unprobed('a file compressed with lzip', undefined, [latin1('LZIP\x01')]),
  unprobed('a file compressed with compress', undefined, [latin1('\x1f\x9d\x90')]),
  unprobed('a 7-Zip archive', undefined, [latin1("7z\xbc\xaf'\x1c")]),
  unprobed('a ZIP archive', undefined, [latin1('PK\x03\x04')]),
  unprobed('a RAR archive', undefined, [latin1('Rar!\x1a\x07')]),
  unprobed('a tar archive (as an OVA is)', undefined, [latin1('ustar'), 257]),
  unprobed('a Proxmox VMA archive', undefined, [latin1('VMA\0')]),
  unprobed('an EnCase (EWF) image', undefined, [latin1('EVF\x09\r\n\xff\0')]),
  unprobed('a partclone image', undefined, [latin1('partclone-image')]),
  unprobed('a WIM image', undefined, [latin1('MSWIM\0\0\0')]),
]

/**
 * Probes a file's format from its first and last bytes.
 * @param head its first PROBE_BYTES bytes, or all
 * @param tail its last PROBE_BYTES bytes, or all
 */
export function probe(head: Buffer, tail: Buffer): ProbedFormat {
  if (head.length === 0) return 'empty'
  if (head.length >= 4 && head.readUInt32BE(0) === MAGIC) {
    const first = head.length >= 8 && head.readUInt32BE(VERSION_AT) === 1
    return first ? { name: 'a qcow image of version 1', driver: 'qcow' } : 'qcow2'
  }
  if (hasAt(head, { bytes: LUKS, at: 0 })) return 'luks'
  if (isDescriptor(head)) return { name: 'a VMDK image', driver: 'vmdk' }
  const found = FOREIGN.find(({ magics }) =>
    magics.every((magic) =>
      magic.at < 0 ? hasAt(tail, { ...magic, at: tail.length + magic.at }) : hasAt(head, magic),
    ),
  )
  return found ? { name: found.name, driver: found.driver } : 'raw'
}

/**
 * The driver that QEMU would choose for a file; `raw` if it recognises no format.
 * @param head the first PROBE_BYTES bytes, the last sector filled up with zeroes
 * @param filename QEMU recognises one format by the file's name
 */
export function probeAsQemu(head: Buffer, filename: string): string {
  if (head.length >= 8 && head.readUInt32BE(0) === MAGIC && head.readUInt32BE(VERSION_AT) > 0) {
    return head.readUInt32BE(VERSION_AT) === 1 ? 'qcow' : 'qcow2'
  }
  if (hasAt(head, { bytes: Buffer.concat([LUKS, Buffer.of(0, 1)]), at: 0 })) return 'luks'
  if (isDescriptor(head)) return 'vmdk'
  const found = FOREIGN.find(
    ({ probedByQemu, magics }) => probedByQemu && magics.every((magic) => hasAt(head, magic)),
  )
  return found?.driver ?? (filename.endsWith('.dmg') ? 'dmg' : 'raw')
}

/** QEMU recognises a VMDK descriptor by its version line, before which only comments are allowed. */
function isDescriptor(head: Buffer): boolean {
  return /^(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n/.test(head.toString('latin1'))
}

function hasAt(bytes: Buffer, { bytes: magic, at }: Magic): boolean {
  return at >= 0 && bytes.subarray(at, at + magic.length).equals(magic)
}

function image(name: string, driver: string, ...magics: [Buffer, number?][]): Signature {
  return { ...unprobed(`a ${name} image`, driver, ...magics), probedByQemu: true }
}

function unprobed(
  name: string,
  driver: string | undefined,
  ...magics: [Buffer, number?][]
): Signature {
  return {
    name,
    driver,
    magics: magics.map(([bytes, at = 0]) => ({ bytes, at })),
    probedByQemu: false,
  }
}

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}
