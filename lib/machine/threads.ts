/**
 * Why a disk with an iothread is not backed up: QEMU before 8.2 ends its NBD clients in the thread that the
 * disk's node is in, and aborts if that is not the main one (7.2.22 was seen to do it, whoever the client
 * was). The guest would be gone.
 */
export const ABORTS_WITH_THREAD =
  'it has an iothread, and this QEMU aborts when an NBD client leaves such a disk: use QEMU 8.2 or newer, ' +
  'or no iothread'

/** Whether a QEMU does that. @param version `7.2.22`; one that is not known counts as new */
export function abortsWithThread(version: string | undefined): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version ?? '') ?? []
  return major !== undefined && (Number(major) < 8 || (Number(major) === 8 && Number(minor) < 2))
}
