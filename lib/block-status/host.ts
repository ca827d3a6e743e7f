import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { type HostWindow, hostWindow } from '../image/data-map.ts'
import { roundUp } from '../units.ts'
import type { BlockNode } from './node.ts'
import { type Answer, DATA, type HostFile, OFFSET_VALID, ZERO } from './status.ts'

/** How far apart two questions may lie in a file and still count as asked in order. */
const NEAR = 2 ** 20

/**
 * A file as QEMU's `file` driver sees it: data and holes by SEEK_DATA and SEEK_HOLE, in sectors at
 * its end. A raw image adds nothing to it, so this is a raw image, too.
 */
export class HostNode implements BlockNode {
  readonly size: number
  readonly overlay = false
  readonly stores: readonly HostFile[]
  readonly #file: HostFile
  #window: HostWindow | undefined

  constructor(file: HostFile) {
    this.stores = [file]
    this.#file = file
    this.size = roundUp(file.size, SECTOR_SIZE)
  }

  ask(at: number, bytes: number): Answer {
    const file = this.#file
    // The last sector of a file that ends inside one.
    if (at >= file.size) return { flags: ZERO | OFFSET_VALID, length: bytes, file, offset: at }
    const window = this.#window
    if (!window || at < window.start || at >= window.end) return this.#load(at, bytes)
    const [{ length, data }] = window.between(at, at + bytes)
    if (data) return { flags: DATA | OFFSET_VALID, length, file, offset: at }
    // A last hole goes on past the end of the file.
    const last = at + length === file.size
    return { flags: ZERO | OFFSET_VALID, length: last ? bytes : length, file, offset: at }
  }

  /** Looks far ahead if the file is walked in order. */
  async #load(at: number, bytes: number): Promise<void> {
    const { size } = this.#file
    const last = this.#window?.end ?? 0
    const onward = at >= last && at - last <= NEAR
    this.#window = await hostWindow(this.#file, at, onward ? size : Math.min(at + bytes, size))
  }
}
