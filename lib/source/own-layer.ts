import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { Qcow2Image } from '../format/qcow2/qcow2-image.ts'
import type { OpenFile } from '../image/file.ts'
import { readLayers } from './layer.ts'
import { qcow2Layer } from './qcow2-layer.ts'
import type { Disk, Mapping } from './source.ts'

/**
 * An image without its backing file: allocated ranges, data or zero, are dirty.
 * REQUIRES: its clusters are in no other file.
 */
export function ownLayer(file: OpenFile, header: Qcow2Header): Disk {
  const layer = qcow2Layer(new Qcow2Image(file, header, file), 0)
  const mappings = () => readLayers([layer])
  return {
    name: file.path,
    size: header.virtualSize,
    stores: [file],
    mappings,
    async *dirtyMappings() {
      for await (const batch of mappings()) yield batch.map(marked)
    },
  }
}

function marked(mapping: Mapping) {
  return Object.assign(mapping, { dirty: mapping.kind !== 'hole' })
}
