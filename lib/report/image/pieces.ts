import type { Mapping } from '../../source/source.ts'
import { roundUp } from '../../units.ts'
import type { Amounts, DiskMap } from './types.ts'

/** Pieces of a disk at most: as many as a wide page has room for. */
const MAX_PIECES = 512
const SECTOR = 512

/** The size of the pieces that a map of a disk has, bytes. */
export function pieceSizeOf(virtualSize: number): number {
  return Math.max(SECTOR, roundUp(Math.ceil(virtualSize / MAX_PIECES), SECTOR))
}

/** Adds up runs of guest bytes by the piece of the disk that they lie in: any number takes the same memory. */
export class Pieces {
  readonly #pieceSize: number
  readonly #bytes: number[]

  constructor(virtualSize: number) {
    this.#pieceSize = pieceSizeOf(virtualSize)
    this.#bytes = new Array(Math.ceil(virtualSize / this.#pieceSize)).fill(0)
  }

  /** What lies past the end of the disk is left out. */
  add(start: number, length: number): void {
    let at = start
    const end = Math.min(start + length, this.#bytes.length * this.#pieceSize)
    for (let i = Math.floor(start / this.#pieceSize); at < end; i++) {
      const next = Math.min(end, (i + 1) * this.#pieceSize)
      this.#bytes[i] += next - at
      at = next
    }
  }

  get bytes(): number[] {
    return this.#bytes
  }

  get sum(): number {
    return sumOf(this.#bytes)
  }
}

/** A map that is being made. */
export class MapInPieces {
  readonly data: Pieces
  readonly compressed: Pieces
  readonly zero: Pieces
  readonly unknown: Pieces

  constructor(virtualSize: number) {
    this.data = new Pieces(virtualSize)
    this.compressed = new Pieces(virtualSize)
    this.zero = new Pieces(virtualSize)
    this.unknown = new Pieces(virtualSize)
  }

  add({ kind, start, length }: Mapping): void {
    if (kind === 'hole') return
    if (kind === 'data' || kind === 'zero') this[kind].add(start, length)
    else this.compressed.add(start, length)
  }

  /** @param visible what is seen of it; the rest of what is stored is hidden. Default: all */
  result(visible: MapInPieces = this): Amounts & { map: DiskMap } {
    const stored = sums(this.data.bytes, this.compressed.bytes)
    const seen = sums(visible.data.bytes, visible.compressed.bytes)
    const map: DiskMap = {
      data: visible.data.bytes,
      compressed: visible.compressed.bytes,
      zero: this.zero.bytes,
      hidden: stored.map((bytes, i) => Math.max(0, bytes - seen[i])),
      unknown: this.unknown.bytes,
    }
    const amounts = Object.entries(map).map(([kind, bytes]) => [kind, sumOf(bytes)])
    return { ...(Object.fromEntries(amounts) as Amounts), map }
  }
}

function sums(a: readonly number[], b: readonly number[]): number[] {
  return a.map((bytes, i) => bytes + b[i])
}

function sumOf(all: readonly number[]): number {
  return all.reduce((sum, bytes) => sum + bytes, 0)
}
