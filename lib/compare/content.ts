import { type HostFile, type Status, type Stream, ZERO } from '../block-status/status.ts'
import type { SourceExport } from '../nbd/export.ts'

/** Where bytes that the guest reads are. */
export type Content =
  | { kind: 'zero' }
  /** As they are, from `offset`, bytes. */
  | { kind: 'data'; file: HostFile; offset: number }
  /** In an export of an NBD server, from `offset`, bytes. */
  | { kind: 'remote'; remote: SourceExport; offset: number }
  /** In a compressed cluster, from its byte `stream.within`. */
  | { kind: 'stream'; file: HostFile; stream: Stream }

/** Where the bytes of a run are, from its byte `skip` on. REQUIRES: an image holds them. */
export function contentOf(status: Status, skip: number): Content {
  const { flags, file, offset, stream, remote } = status
  if ((flags & ZERO) !== 0) return { kind: 'zero' }
  if (remote) return { kind: 'remote', remote, offset: offset + skip }
  if (!file) return { kind: 'zero' }
  if (stream) return { kind: 'stream', file, stream: { ...stream, within: stream.within + skip } }
  return { kind: 'data', file, offset: offset + skip }
}

/** Whether two places are the same bytes of the same file, which need not be read to be equal. */
export function sameContent(a: Content, b: Content): boolean {
  if (a.kind === 'zero' || b.kind === 'zero') return a.kind === b.kind
  // It may be written to meanwhile.
  if (a.kind === 'remote' || b.kind === 'remote') return false
  if (a.file.identity !== b.file.identity) return false
  if (a.kind === 'data') return b.kind === 'data' && a.offset === b.offset
  if (b.kind !== 'stream') return false
  return (Object.keys(a.stream) as (keyof Stream)[]).every((key) => a.stream[key] === b.stream[key])
}
