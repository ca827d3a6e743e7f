import type { OpenFile } from '../image/file.ts'
import { native } from '../native.ts'
import type { Mapping, SourceFile } from '../source/source.ts'

type DataMapping = Extract<Mapping, { kind: 'data' }>

/** Alignment that file systems require of shared ranges, bytes. */
const BLOCK = 4096

/**
 * Shares blocks of other files with a file instead of copying them, where the file system
 * can (XFS, Btrfs). The content is the same: ranges that cannot be shared are copied, to the same place.
 */
export class BlockSharer {
  readonly #files: readonly SourceFile[]
  readonly #target: OpenFile
  /** Files whose blocks cannot be shared. */
  readonly #never = new Set<number>()

  /** @param files the stores that mappings point into */
  constructor(files: readonly SourceFile[], target: OpenFile) {
    this.#files = files
    this.#target = target
  }

  /**
   * Shares the blocks of mappings where possible.
   * @param mappings `start` is where in the target they go
   * @returns those that have to be copied
   */
  async take(mappings: readonly Mapping[]): Promise<readonly Mapping[]> {
    const byFile = new Map<number, DataMapping[]>()
    for (const mapping of mappings) {
      if (mapping.kind !== 'data' || this.#never.has(mapping.store) || !isAligned(mapping)) continue
      const some = byFile.get(mapping.store)
      if (some) some.push(mapping)
      else byFile.set(mapping.store, [mapping])
    }
    const shared = new Set<Mapping>()
    for (const [file, some] of byFile) {
      const done = await this.#clone(file, some)
      if (done === 0) this.#never.add(file)
      for (const mapping of some.slice(0, done)) shared.add(mapping)
    }
    return shared.size === 0 ? mappings : mappings.filter((mapping) => !shared.has(mapping))
  }

  /** @returns how many of the mappings were shared, from the first on */
  #clone(file: number, mappings: readonly DataMapping[]): Promise<number> {
    const ranges = new Float64Array(mappings.length * 3)
    for (const [i, { offset, start, length }] of mappings.entries()) {
      ranges.set([offset, start, length], i * 3)
    }
    return native().cloneRanges(this.#files[file].handle.fd, this.#target.handle.fd, ranges)
  }
}

function isAligned({ start, length, offset }: DataMapping): boolean {
  return start % BLOCK === 0 && length % BLOCK === 0 && offset % BLOCK === 0
}
