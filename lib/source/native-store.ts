import type { CopyExport } from '../native.ts'
import type { SourceExport, SourceFile, SourceReader, SourceStore } from './source.ts'

/** A store as the addon takes it; the connection that an export hands out is the addon's then. */
export function nativeStore(store: SourceFile | SourceExport): NativeFile | CopyExport
export function nativeStore(store: SourceStore): NativeFile | CopyExport | NativeReader
export function nativeStore(store: SourceStore): NativeFile | CopyExport | NativeReader {
  switch (store.kind) {
    case 'file':
      return { fd: store.handle.fd, size: store.size }
    case 'reader':
      return { size: store.size }
    case 'export': {
      const { kind: _, takeConnection, ...asked } = store
      return { ...asked, connection: store.takeConnection?.() }
    }
  }
}

interface NativeFile {
  fd: number
  size: number
}

type NativeReader = Pick<SourceReader, 'size'>
