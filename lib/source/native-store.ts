import type { NativeSource } from '../native.ts'
import type { SourceExport, SourceFile, SourceStore } from './source.ts'

type Readable = Exclude<NativeSource, { kind: 'reader' }>

/** A store as the addon takes it; the connection that an export hands out is the addon's then. */
export function nativeStore(store: SourceFile | SourceExport): Readable
export function nativeStore(store: SourceStore): NativeSource
export function nativeStore(store: SourceStore): NativeSource {
  switch (store.kind) {
    case 'file':
      return { kind: 'file', fd: store.handle.fd, size: store.size, unlimited: store.unlimited }
    case 'reader':
      return { kind: 'reader', size: store.size }
    case 'export': {
      const { takeConnection, ...asked } = store
      return { ...asked, connection: store.takeConnection?.() }
    }
  }
}
