import { argumentError } from '../errors.ts'
import { log } from '../log.ts'
import type { NbdHandle, NbdInfo } from '../native.ts'
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
  /** Most connections, and requests in flight on each. */
  readonly connections: number
  readonly requests: number
  /** What offsets and lengths of requests must be multiples of, bytes. */
  readonly blockMin: number
  /** Most bytes of one request. */
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
   * Most connections to the server, 1 to 16; fewer if it takes no more. Default: 4, or 1 if the
   * server is for one only.
   */
  connections?: number
  /** Most requests in flight on each connection, 1 to 1024. Default 64. */
  requests?: number
  /**
   * How long the server may take to be connected to, or to get on with an answer: it is given up
   * when 256 KiB take longer. Default 30,000.
   */
  timeoutMs?: number
  /** Ends whatever the server is waited for; calls reject with BackupError ABORTED. */
  signal?: AbortSignal
}

/**
 * Where the server answers several connections as one (multi-conn). Measured with 20,000 scattered
 * pieces of 64 KiB from qemu-storage-daemon: 1 connection 3.8 to 4.2 s, 2 3.4 to 3.7 s, 4 3.0 to
 * 3.4 s, 8 the same.
 */
const DEFAULT_CONNECTIONS = 4
const MAX_CONNECTIONS = 16
/** In flight on each connection: as many as the copy may have in all (lib/backup/options.ts). */
const DEFAULT_REQUESTS = 64

/** Long enough for a server that waits for its disk to spin up. */
const DEFAULT_TIMEOUT_MS = 30_000
const MAX_TIMEOUT_MS = 86_400_000

/**
 * How the server of a URI is reached.
 * @throws BackupError USAGE, or IO if it could be anybody
 */
export async function openServer(uri: string, options: NbdOptions): Promise<NbdServer> {
  const { connections, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options
  inRange('connections', connections, MAX_CONNECTIONS, `from 1 to ${MAX_CONNECTIONS}`)
  inRange('timeoutMs', timeoutMs, MAX_TIMEOUT_MS, 'of at most a day')
  const server = { ...parseNbdUri(uri), timeoutMs, signal }
  await requireTrust(server)
  return server
}

function inRange(option: string, value: number | undefined, max: number, range: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1 && value <= max)) return
  throw argumentError(option, `${value} is not a number ${range}`)
}

/** An export as the addon asks it. */
export function exportOf(server: NbdServer, info: NbdInfo, options: NbdOptions): SourceExport {
  const { shown: path, uri, identity, timeoutMs } = server
  const { size, fingerprint, multiConn, blockMin, blockMax } = info
  const { requests = DEFAULT_REQUESTS } = options
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
