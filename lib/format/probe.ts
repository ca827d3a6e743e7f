import { MAGIC } from './qcow2/constants.ts'

/**
 * The format of an image by its first bytes: qcow2 by its magic, else raw. Only for files that the
 * user names. Never probe a backing file: a raw one's first bytes belong to the guest, who could
 * write a header there that names any file of the host.
 */
export function probe(head: Buffer): 'raw' | 'qcow2' {
  return head.length >= 4 && head.readUInt32BE(0) === MAGIC ? 'qcow2' : 'raw'
}
