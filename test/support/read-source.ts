import { inflateRawSync } from 'node:zlib'
import type { Extent } from '../../lib/extents/extent.ts'
import type { Mapping, Source } from '../../lib/source/source.ts'

/** Every mapping of a source; checks that they are ordered, contiguous and end at its size. */
export async function mappingsOf(source: Source): Promise<Mapping[]> {
  const mappings: Mapping[] = []
  let end = 0
  for await (const batch of source.mappings()) {
    for (const mapping of batch) {
      if (mapping.start !== end || mapping.length <= 0) {
        throw new Error(`a mapping starts at ${mapping.start} where ${end} was due`)
      }
      end += mapping.length
      mappings.push(mapping)
    }
  }
  if (end !== source.size) throw new Error(`mappings end at ${end} of ${source.size}`)
  return mappings
}

/** The content of a small source, read by its mappings. Deflate only. */
export async function contentOf(source: Source): Promise<Buffer> {
  const content = Buffer.alloc(source.size)
  for (const mapping of await mappingsOf(source)) {
    if (!('store' in mapping)) continue
    const file = source.stores[mapping.store]
    if (file.kind !== 'file') throw new Error('cannot read exports')
    const length = mapping.kind === 'data' ? mapping.length : mapping.size
    const stored = Buffer.alloc(length)
    const { bytesRead } = await file.handle.read(stored, 0, length, mapping.offset)
    if (bytesRead !== length) throw new Error(`a mapping reaches past the end of its file`)
    if (mapping.kind === 'data') {
      stored.copy(content, mapping.start)
    } else if (mapping.kind === 'deflate') {
      const cluster = inflateRawSync(stored)
      if (cluster.length !== mapping.clusterSize) throw new Error('a cluster expands wrongly')
      cluster.copy(content, mapping.start, mapping.within, mapping.within + mapping.length)
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
