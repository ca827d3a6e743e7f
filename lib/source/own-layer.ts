import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { Qcow2Image } from '../format/qcow2/image.ts'
import type { OpenedFile } from '../image/file.ts'
import { readLayers } from './layer.ts'
import { qcow2Layer } from './qcow2.ts'
import type { Disk, Piece } from './source.ts'

/**
 * What an image itself holds, without what it builds on: dirty is what it has, be it data or zero.
 * REQUIRES: its clusters are in no other file.
 */
export function ownLayer(file: OpenedFile, header: Qcow2Header): Disk {
  const layer = qcow2Layer(new Qcow2Image(file, header, file), 0)
  const pieces = () => readLayers([layer])
  return {
    name: file.path,
    size: header.virtualSize,
    stores: [file],
    pieces,
    async *markedPieces() {
      for await (const batch of pieces()) yield batch.map(marked)
    },
  }
}

function marked(piece: Piece) {
  return Object.assign(piece, { dirty: piece.kind !== 'hole' })
}
