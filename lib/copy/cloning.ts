import type { OpenedFile } from '../image/file.ts'
import { native } from '../native.ts'
import type { Piece, SourceFile } from '../source/source.ts'

type DataPiece = Extract<Piece, { kind: 'data' }>

/** What file systems that share blocks between files want ranges to be multiples of, bytes. */
const BLOCK = 4096

/**
 * Lets a file share blocks of other files instead of getting copies of them, where the file system
 * can (XFS, Btrfs). It changes no content: what cannot be shared is copied, to the same place.
 */
export class Cloning {
  readonly #files: readonly SourceFile[]
  readonly #target: OpenedFile
  /** Of which nothing can be shared. */
  readonly #never = new Set<number>()

  /** @param files what pieces point into */
  constructor(files: readonly SourceFile[], target: OpenedFile) {
    this.#files = files
    this.#target = target
  }

  /**
   * Shares what it can.
   * @param pieces `start` is where in the target they go
   * @returns those that have to be copied
   */
  async take(pieces: readonly Piece[]): Promise<readonly Piece[]> {
    const byFile = new Map<number, DataPiece[]>()
    for (const piece of pieces) {
      if (piece.kind !== 'data' || this.#never.has(piece.store) || !isAligned(piece)) continue
      const some = byFile.get(piece.store)
      if (some) some.push(piece)
      else byFile.set(piece.store, [piece])
    }
    const shared = new Set<Piece>()
    for (const [file, some] of byFile) {
      const done = await this.#clone(file, some)
      if (done === 0) this.#never.add(file)
      for (const piece of some.slice(0, done)) shared.add(piece)
    }
    return shared.size === 0 ? pieces : pieces.filter((piece) => !shared.has(piece))
  }

  /** @returns how many of the pieces were shared, from the first on */
  #clone(file: number, pieces: readonly DataPiece[]): Promise<number> {
    const ranges = new Float64Array(
      pieces.flatMap(({ offset, start, length }) => [offset, start, length]),
    )
    return native().cloneRanges(this.#files[file].handle.fd, this.#target.handle.fd, ranges)
  }
}

function isAligned({ start, length, offset }: DataPiece): boolean {
  return start % BLOCK === 0 && length % BLOCK === 0 && offset % BLOCK === 0
}
