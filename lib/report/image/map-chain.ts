import type { ControlOptions } from '../../options.ts'
import { positions } from '../../progress.ts'
import { splitHoles } from '../../source/holes.ts'
import { type Layer, readLayers } from '../../source/layer.ts'
import type { Mapping } from '../../source/source.ts'
import type { Chain } from '../../source/source-chain.ts'
import { withTurns } from '../../turns.ts'
import { roundUp } from '../../units.ts'
import { MapInPieces } from './pieces.ts'
import type { Amounts, DiskMap } from './types.ts'

/** A map with its sums. */
export type Mapped = Amounts & { map: DiskMap }

/** What the guest sees of a chain, and what each of its images has, top first. */
export interface ChainMap {
  disk: Mapped
  images: Mapped[]
}

/** Runs a reading; undefined if a table cannot be read, and the next ones are to be. */
export type Attempt = (work: () => Promise<true>) => Promise<true | undefined>

/** Parts of a disk that are read one by one: what is damaged takes no more than its part with it. */
const PARTS = 64
const SECTOR = 512

/**
 * Maps a chain in pieces, in memory that does not depend on how many extents there are. Tables are read
 * twice: for all images together, and for each by itself.
 * @throws BackupError ABORTED, and what `attempt` lets through
 */
export async function mapChain(
  chain: Pick<Chain, 'images' | 'layers' | 'files' | 'sparse'>,
  attempt: Attempt,
  { signal, onProgress }: ControlOptions = {},
): Promise<ChainMap> {
  const { images, layers, files, sparse } = chain
  const { size } = layers[0]
  const { path } = images[0]
  // What the only image has is what the guest sees.
  const alone = layers.length === 1
  const all = alone ? size : size * (layers.length + 1)
  const tell = positions('map', all, onProgress)
  const part = roundUp(Math.ceil(size / PARTS), SECTOR)
  let passed = 0
  const read = async (
    some: readonly Layer[],
    map: MapInPieces,
    take?: (mapping: Mapping) => void,
  ) => {
    const end = Math.min(size, some[0].size)
    for (let start = 0; start < end; start += part) {
      const length = Math.min(part, end - start)
      let at = start
      const whole = await attempt(async () => {
        const batches = splitHoles(readLayers(some, { start, length }), sparse)
        for await (const batch of withTurns(batches, path, signal)) {
          for (const mapping of batch) {
            map.add(mapping)
            take?.(mapping)
            at = mapping.start + mapping.length
          }
        }
        return true
      })
      if (!whole) map.unknown.add(at, start + length - at)
      tell?.(passed + start)
    }
    passed += size
  }

  const disk = new MapInPieces(size)
  const visible = images.map(() => new MapInPieces(size))
  const imageOf = new Map(
    images.map(({ file, dataFile }, i) => [files.indexOf(dataFile?.file ?? file), i]),
  )
  await read(layers, disk, (mapping) => {
    const image = 'store' in mapping ? imageOf.get(mapping.store) : undefined
    if (image !== undefined) visible[image].add(mapping)
  })
  const mapped = alone ? [disk.result()] : []
  for (const [i, layer] of alone ? [] : layers.entries()) {
    const own = new MapInPieces(size)
    await read([layer], own)
    mapped.push(own.result(visible[i]))
  }
  tell?.(all, true)
  return { disk: disk.result(), images: mapped }
}
