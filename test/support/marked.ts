import type { Source } from '../../lib/source/source.ts'

/**
 * What a source says of a disk, neighbours of equal status joined: a line each, in KiB. Checks that
 * nothing is left out, and that data of an export is where the guest has it.
 */
export async function markedOf(source: Source): Promise<string[]> {
  const joined: { start: number; length: number; status: string }[] = []
  let end = 0
  for await (const batch of source.markedPieces()) {
    for (const piece of batch) {
      if (piece.start !== end) throw new Error(`a piece starts at ${piece.start}, not ${end}`)
      if (piece.kind === 'data' && (piece.store !== 0 || piece.offset !== piece.start)) {
        throw new Error(`the piece at ${piece.start} points elsewhere`)
      }
      end += piece.length
      const status = piece.dirty ? `dirty ${piece.kind}` : piece.kind
      const last = joined[joined.length - 1]
      if (last?.status === status) last.length += piece.length
      else joined.push({ start: piece.start, length: piece.length, status })
    }
  }
  if (end !== source.size) throw new Error(`pieces end at ${end} of ${source.size}`)
  return joined.map(({ start, length, status }) => {
    return `${start / 1024}K +${length / 1024}K ${status}`
  })
}
