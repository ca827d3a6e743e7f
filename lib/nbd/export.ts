import { log } from '../log.ts'
import type { NbdHandle, NbdInfo } from '../native.ts'
import { DEFAULT_CONNECTIONS, DEFAULT_REQUESTS, DEFAULT_TIMEOUT_SECONDS } from '../options.ts'
import type { NbdServer } from './connection.ts'
import { requireTrust } from './tls.ts'
import { parseNbdUri } from './uri.ts'

/** An export of an NBD server that holds guest bytes of a source, at their guest offsets. */
export interface SourceExport {
  readonly kind: 'export'
  /** The URI as messages show it. */
  readonly path: string
  /** The URI as libnbd takes it. */
  readonly uri: string
  /** Bytes when it was opened. */
  readonly size: number
  readonly identity: string
  /** All that the server says of the export, see NbdInfo: with another it is another disk. */
  readonly fingerprint: string
  /** Maximum connections, and requests in flight on each. */
  readonly connections: number
  readonly requests: number
  /** Alignment of offsets and lengths of requests, bytes. */
  readonly blockMin: number
  /** Maximum bytes of one request. */
  readonly blockMax: number
  /** How long the server may take to get on with an answer. */
  readonly timeoutMs: number
  /**
   * Hands out the connection that asked for extents, once, if reading has to go on with it: the
   * server may take no other.
   */
  takeConnection?(): NbdHandle | undefined
}

/** How an export is asked; all optional. */
export interface NbdOptions {
  /**
   * Maximum connections to the server, 1 to 16; fewer if it accepts fewer. Default: 4, or 1 if the
   * server is for one only.
   */
  connections?: number
  /** Maximum requests in flight on each connection, 1 to 1024. Default 64. */
  requests?: number
  /**
   * How long the server may take to be connected to, or to get on with an answer: it is given up
   * when 256 KiB take longer. Default 30,000.
   */
  timeoutMs?: number
  /**
   * Ask for no more than this at once, nor across a multiple of it, and not for holes; a power of two.
   * QEMU before 8.0 answers wrongly about a point in time (`snapshot-access`) where a request covers
   * both what the guest has overwritten since and what it has not: 64 KiB, its cluster, is safe.
   */
  requestSize?: number
  /** Cancels all waiting calls, which reject with BackupError ABORTED. */
  signal?: AbortSignal
}

/**
 * How the server of a URI is reached.
 * @throws BackupError USAGE, or IO if it could be anybody
 */
export async function openServer(uri: string, options: NbdOptions): Promise<NbdServer> {
  const { timeoutMs = DEFAULT_TIMEOUT_SECONDS * 1000, signal } = options
  const server = { ...parseNbdUri(uri), timeoutMs, signal }
  await requireTrust(server)
  return server
}

/** An export as the addon asks it. */
export function exportOf(server: NbdServer, info: NbdInfo, options: NbdOptions): SourceExport {
  const { displayUri: path, uri, identity, timeoutMs } = server
  const { size, fingerprint, multiConn, blockMin } = info
  const { requests = DEFAULT_REQUESTS, requestSize = info.blockMax } = options
  const blockMax = Math.min(info.blockMax, requestSize)
  const connections = options.connections ?? (multiConn ? DEFAULT_CONNECTIONS : 1)
  log('nbd', () => {
    const why = options.connections
      ? 'as asked'
      : multiConn
        ? 'the default'
        : 'the server is for one'
    return `${path}: ${connections} connections of ${requests} requests, ${why}`
  })
  return {
    kind: 'export',
    ...{ path, uri, size, identity, fingerprint },
    ...{ connections, requests, blockMin, blockMax, timeoutMs },
  }
}
