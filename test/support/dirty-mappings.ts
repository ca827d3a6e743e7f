import type { Source } from '../../lib/source/source.ts'

/**
 * A source's dirty mappings, neighbours of equal status joined: a line each, in KiB. Checks that
 * nothing is left out, and that data of an export is where the guest has it.
 */
export async function markedOf(source: Source): Promise<string[]> {
  const joined: { start: number; length: number; status: string }[] = []
  let end = 0
  for await (const batch of source.dirtyMappings()) {
    for (const mapping of batch) {
      if (mapping.start !== end) throw new Error(`a mapping starts at ${mapping.start}, not ${end}`)
      if (mapping.kind === 'data' && (mapping.store !== 0 || mapping.offset !== mapping.start)) {
        throw new Error(`the mapping at ${mapping.start} points elsewhere`)
      }
      end += mapping.length
      const status = mapping.dirty ? `dirty ${mapping.kind}` : mapping.kind
      const last = joined[joined.length - 1]
      if (last?.status === status) last.length += mapping.length
      else joined.push({ start: mapping.start, length: mapping.length, status })
    }
  }
  if (end !== source.size) throw new Error(`mappings end at ${end} of ${source.size}`)
  return joined.map(({ start, length, status }) => {
    return `${start / 1024}K +${length / 1024}K ${status}`
  })
}
