import type { CopySpec, NativeTargetStore } from '../native.ts'
import { nativeStore } from '../source/native-store.ts'
import type { Disk } from '../source/source.ts'
import { encodeText } from '../text.ts'
import type { JobOptions, TargetFormat } from './spec.ts'
import type { TargetStore } from './target/target.ts'

/**
 * Bytes of buffers. Measured on ext4 with O_DIRECT, 3 GB of data: with 32, 48 and 96 MiB a copy
 * takes the same time within the noise. This keeps the process near 110 MB with Node's own 50.
 */
const MEMORY = 48 * 2 ** 20

/**
 * A copy as the addon takes it.
 * @param store of the target; undefined if nothing is written
 */
export function copySpec(
  { stores, size }: Pick<Disk, 'stores' | 'size'>,
  store: TargetStore | undefined,
  { format, engine, direct, requests, hash = false, layers, ...limits }: JobOptions,
): CopySpec {
  return {
    sources: stores.map((source) => nativeStore(source)),
    layers: layers?.map((layer) => ({ store: layer.store, hasBacking: layer.hasBacking })),
    target: nativeTarget(format, store),
    size,
    engine,
    direct,
    requests,
    memory: limits.memory ?? MEMORY,
    rateLimit: limits.rateLimit,
    sharesRateOf: limits.sharesRateOf,
    holdFailures: true,
    hash,
  }
}

function nativeTarget(format: TargetFormat, store: TargetStore | undefined): CopySpec['target'] {
  if (format.kind === 'hash') return format
  if (!store) throw new Error(`a copy to ${format.kind} needs a target`)
  if (format.kind === 'raw') return { ...format, store: nativeTargetStore(store) }
  if (store.kind !== 'file')
    throw new Error(`a target of kind ${store.kind} takes a raw disk, not ${format.kind}`)
  if (format.kind === 'patch') return { ...format, store }
  const { backing } = format
  return {
    ...format,
    store,
    backing: backing && { name: encodeText(backing.name), format: backing.format },
  }
}

function nativeTargetStore(store: TargetStore): NativeTargetStore {
  if (store.kind !== 'writer') return store
  const { kind, canZero, requests } = store
  return { kind, canZero, requests }
}
