import type { Answer, GuestStore, Status } from './status.ts'
import { ALLOCATED, DATA, EOF, OFFSET_VALID, RECURSE, ZERO } from './status.ts'

/** An image of a chain, or a file below one, as QEMU's block layer has it. */
export interface BlockNode {
  /** Virtual size, bytes. */
  readonly size: number
  /** Unallocated ranges may be the backing file's. */
  readonly overlay: boolean
  readonly backing?: BlockNode
  /** Stores that its answers may name, without those of its backing file. */
  readonly stores: readonly GuestStore[]
  /** The file whose holes may show zeroes in this node's data. */
  readonly host?: BlockNode
  /**
   * The node's own status of the bytes from `at`, which lie inside it.
   * @param bytes more than 0; the answer, which becomes the caller's, is for as many at most
   * @throws StatusError
   */
  ask(at: number, bytes: number): Answer
}

/** Stores that the answers of disks, each with its backing chain, may name. */
export function storesOf(disks: readonly BlockNode[]): GuestStore[] {
  const stores: GuestStore[] = []
  for (const top of disks) {
    for (let node: BlockNode | undefined = top; node; node = node.backing) {
      stores.push(...node.stores)
    }
  }
  return stores
}

/**
 * The status of guest bytes in one image, which may leave them to its backing file
 * (`bdrv_block_status`).
 * @throws StatusError
 */
export function blockStatus(node: BlockNode, at: number, bytes: number): Answer {
  if (at >= node.size) return { flags: EOF, length: 0, offset: 0 }
  const status = node.ask(at, Math.min(bytes, node.size - at))
  if (status instanceof Promise) return status
  if ((status.flags & (DATA | ZERO)) !== 0) status.flags |= ALLOCATED
  // Bytes that no backing file covers are zero.
  else if (node.overlay && at >= (node.backing?.size ?? 0)) status.flags |= ZERO
  const below = (status.flags & RECURSE) !== 0 ? narrowToHoles(node, status) : undefined
  if (below) return below
  status.flags &= ~RECURSE
  if (at + status.length === node.size) status.flags |= EOF
  return status
}

/** Applies the file's holes to `status`. */
function narrowToHoles({ host }: BlockNode, status: Status): Promise<void> | undefined {
  const wanted = DATA | OFFSET_VALID
  if (!host || (status.flags & (wanted | ZERO)) !== wanted) return undefined
  const below = blockStatus(host, status.offset, status.length)
  if (below instanceof Promise) return below
  const beyond = (below.flags & EOF) !== 0 && (below.length === 0 || (below.flags & ZERO) !== 0)
  // Bytes past the end of the file read as zero.
  if (beyond) {
    status.flags |= ZERO
  } else {
    status.length = below.length
    status.flags |= below.flags & ZERO
  }
  return undefined
}

/**
 * The status of guest bytes through the whole chain (`bdrv_block_status_above`): who holds them is
 * who answers.
 * @throws StatusError
 */
export function statusAbove(top: BlockNode, at: number, bytes: number): Answer {
  let length = bytes
  let end: number | undefined
  for (let node: BlockNode | undefined = top; node; node = node.backing) {
    const answer = blockStatus(node, at, length)
    if (answer instanceof Promise) return answer
    if (answer.length === 0 && node !== top) {
      // A short backing file: its zeroes count as held by it.
      answer.length = length
      answer.flags = ZERO | ALLOCATED
    }
    const held = (answer.flags & ALLOCATED) !== 0
    if (held || !node.backing) {
      // Only the top's end is the end.
      if (node !== top && held) answer.flags &= ~EOF
      if (at + answer.length === end) answer.flags |= EOF
      return answer
    }
    if ((answer.flags & EOF) !== 0) end = at + answer.length
    length = answer.length
  }
  throw new Error('a chain has no image')
}
