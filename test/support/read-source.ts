import { inflateRawSync } from 'node:zlib'
import type { Extent } from '../../lib/extents/extent.ts'
import type { Piece, Source } from '../../lib/source/source.ts'

/** Every piece of a source; checks that they are ordered, contiguous and end at its size. */
export async function piecesOf(source: Source): Promise<Piece[]> {
  const pieces: Piece[] = []
  let end = 0
  for await (const batch of source.pieces()) {
    for (const piece of batch) {
      if (piece.start !== end || piece.length <= 0) {
        throw new Error(`a piece starts at ${piece.start} where ${end} was due`)
      }
      end += piece.length
      pieces.push(piece)
    }
  }
  if (end !== source.size) throw new Error(`pieces end at ${end} of ${source.size}`)
  return pieces
}

/** The content of a small source, read by its pieces. Deflate only. */
export async function contentOf(source: Source): Promise<Buffer> {
  const content = Buffer.alloc(source.size)
  for (const piece of await piecesOf(source)) {
    if (!('store' in piece)) continue
    const file = source.stores[piece.store]
    if (file.kind !== 'file') throw new Error('cannot read exports')
    const length = piece.kind === 'data' ? piece.length : piece.size
    const stored = Buffer.alloc(length)
    const { bytesRead } = await file.handle.read(stored, 0, length, piece.offset)
    if (bytesRead !== length) throw new Error(`a piece reaches past the end of its file`)
    if (piece.kind === 'data') {
      stored.copy(content, piece.start)
    } else if (piece.kind === 'deflate') {
      const cluster = inflateRawSync(stored)
      if (cluster.length !== piece.clusterSize) throw new Error('a cluster expands wrongly')
      cluster.copy(content, piece.start, piece.within, piece.within + piece.length)
    } else {
      throw new Error('cannot expand zstd')
    }
  }
  return content
}

/** Every extent of a source. */
export async function extentsOf(source: Source): Promise<Extent[]> {
  const extents: Extent[] = []
  for await (const extent of source.extents()) extents.push(extent)
  return extents
}
