import { MAGIC } from '../format/qcow2/constants.ts'

/** Bytes of a file that its format is told by. */
export const PROBE_BYTES = 512

/** Other formats that QEMU knows, by what stands at the start of their images. */
const OTHERS: readonly [format: string, start: Buffer, at?: number][] = [
  ['vmdk', Buffer.from('KDMV')],
  ['vmdk', Buffer.from('COWD')],
  ['vdi', Buffer.from([0x7f, 0x10, 0xda, 0xbe]), 64],
  ['vhdx', Buffer.from('vhdxfile')],
  ['vpc', Buffer.from('conectix')],
  ['qed', Buffer.from('QED\0')],
  ['luks', Buffer.from('LUKS\xba\xbe\0\x01', 'latin1')],
  ['parallels', Buffer.from('WithoutFreeSpace')],
  ['parallels', Buffer.from('WithouFreSpacExt')],
]

/**
 * What QEMU takes a file for by its first bytes: `raw` if it knows no better. Only for files that
 * the user names, never for what an image names.
 */
export function probeFormat(head: Buffer): string {
  if (head.length >= 8 && head.readUInt32BE(0) === MAGIC && head.readUInt32BE(4) > 0) {
    return head.readUInt32BE(4) === 1 ? 'qcow' : 'qcow2'
  }
  for (const [format, start, at = 0] of OTHERS) {
    if (head.subarray(at, at + start.length).equals(start)) return format
  }
  return 'raw'
}
