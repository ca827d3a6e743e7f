import type { Socket } from 'node:net'
import { abortedError } from '../../errors.ts'
import { log } from '../../log.ts'
import { DEFAULT_CONNECTIONS, DEFAULT_TIMEOUT_SECONDS } from '../../options.ts'
import { type Abilities, askAbilities } from './abilities.ts'
import { type ImageAddress, parseImageUrl } from './address.ts'
import { ImageConnection } from './connection.ts'
import { Connections } from './connections.ts'
import { imageError, whyOf } from './failure.ts'
import { askSize } from './size.ts'
import { type Connect, connectorOf, type TrustOptions } from './trust.ts'

/** How an image is asked for; all optional. */
export interface ImageClientOptions extends TrustOptions {
  /** Connections, 1 to 16; fewer if the server takes fewer. Default 4. */
  connections?: number
  /** How long the server may be silent. Default 30,000. */
  timeoutMs?: number
  /** Cancels everything. */
  signal?: AbortSignal
}

/** What an image is asked for. */
export type Use = 'read' | 'write'

/** An image that a server hands out for a ticket, open. */
export interface ServedImage {
  readonly address: ImageAddress
  readonly abilities: Abilities
  readonly timeoutMs: number
  readonly connections: Connections
  /** Bytes; to be written, undefined if the ticket is not for reading. */
  readonly size?: number
  close(): Promise<void>
}

/**
 * Opens an image: makes sure that the ticket is good, and asks what the server can do and how large it is.
 * Where the server is on this host, over its Unix socket.
 * @throws BackupError USAGE, IO, ABORTED
 */
export async function openImage(
  url: string,
  use: Use,
  options: ImageClientOptions,
): Promise<ServedImage> {
  const address = parseImageUrl(url)
  const { timeoutMs = DEFAULT_TIMEOUT_SECONDS * 1000, signal } = options
  const connect = await connectorOf(address, options, timeoutMs)
  const { path, displayUrl } = address
  let doing = 'cannot connect'
  const opened: { close(): Promise<void> }[] = []
  try {
    const first = await reach(address, connect, timeoutMs, signal)
    opened.push(first.connection)
    const { abilities } = first
    const most = use === 'read' ? abilities.maxReaders : abilities.maxWriters
    const count = Math.min(options.connections ?? DEFAULT_CONNECTIONS, most)
    const make = () => new ImageConnection(first.origin, path, first.connect, timeoutMs)
    const connections = new Connections(make, count)
    opened.push(connections)
    // Each connection is one to the disk for the server.
    await first.connection.close()
    doing = 'cannot find out how large it is'
    const size =
      use === 'write'
        ? await connections.use((one) => askSize(one, signal)).catch(() => undefined)
        : await connections.use((one) => askSize(one, signal))
    log('imageio', () => {
      const features = [...abilities.features].join(', ') || 'no features'
      return `${displayUrl}: ${size ?? 'unknown'} bytes; ${features}; ${count} of ${most} connections`
    })
    return { address, abilities, timeoutMs, connections, size, close: () => connections.close() }
  } catch (error) {
    for (const one of opened) await one.close()
    if (signal?.aborted) throw abortedError(displayUrl, signal)
    throw imageError(address, doing, error, timeoutMs)
  }
}

/** A server, as it is best reached. */
interface Reached {
  origin: string
  connect: Connect
  connection: ImageConnection
  abilities: Abilities
}

/** Connects, and switches to the server's Unix socket where both are on the same host. */
async function reach(
  { origin, path, socket, displayUrl }: ImageAddress,
  connect: Connect,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Reached> {
  let isLocal = false
  const looking: Connect = (target, callback) =>
    connect(target, (...result) => {
      const [, connected] = result
      if (connected) isLocal = endsOnThisHost(connected)
      callback(...result)
    })
  const connection = new ImageConnection(origin, path, looking, timeoutMs)
  let abilities: Abilities
  try {
    abilities = await askAbilities(connection, signal)
  } catch (error) {
    await connection.close()
    throw error
  }
  const remote = { origin, connect, connection, abilities }
  if (socket !== undefined || !isLocal || abilities.socket === undefined) return remote
  const near = await connectorOf({ tls: false, socket: abilities.socket }, {}, timeoutMs)
  const local = new ImageConnection('http://localhost', path, near, timeoutMs)
  try {
    const again = await askAbilities(local, signal)
    await connection.close()
    log('imageio', () => `${displayUrl}: over the server's Unix socket, which is on this host`)
    return { origin: 'http://localhost', connect: near, connection: local, abilities: again }
  } catch (error) {
    // Not visible from here, as in a container.
    await local.close()
    signal?.throwIfAborted()
    log('imageio', () => {
      const why = whyOf(error, path, timeoutMs)
      return `${displayUrl}: not over the server's Unix socket: ${why}`
    })
    return remote
  }
}

/** imageio's rule: both ends of the connection have one address. */
function endsOnThisHost({ localAddress, remoteAddress }: Socket): boolean {
  return localAddress !== undefined && localAddress === remoteAddress
}
