import { createServer, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { abortedError, argumentError, BackupError, ioError, messageOf } from '../errors.ts'
import { readFile } from '../files.ts'
import { log } from '../log.ts'
import { type Address, addressOf, formatAddress } from './address.ts'
import { createImageServer, type ImageServer, type ImageServerOptions } from './image-server.ts'
import { listen } from './listen.ts'

/** Options of `serveImages`. */
export interface ServeOptions extends Omit<ImageServerOptions, 'unixSocket'> {
  /**
   * Where images are served: `HOST:PORT`, or `unix:PATH`; `unix:@NAME` is an abstract socket. Port 0 means any free
   * one. The first Unix socket is the one that clients of this host are told of.
   */
  listen: readonly string[]
  /** Where tickets are added: `unix:PATH`. Only the user of this process can connect there. */
  control: string
  /** Files of a certificate (chain) and its key, PEM: images are served by HTTPS then, but over Unix sockets. */
  tlsCert?: string
  tlsKey?: string
  /** Called once when it serves. */
  onListening?: (where: Listening) => void
  /** Ends the server: requests under way have ten seconds. */
  signal?: AbortSignal
}

/** Where a server listens. */
export interface Listening {
  /** Addresses as `listen` has them, with the ports that there are. */
  listen: string[]
  control: string
}

/** Time for requests that are under way at the end. */
const DRAIN_MS = 10_000

/**
 * Serves images until the signal is aborted.
 * @throws BackupError ABORTED then; USAGE, IO, IN_USE if it cannot begin
 */
export async function serveImages(options: ServeOptions): Promise<never> {
  const { signal, onListening, tlsCert, tlsKey, listen: wanted, control, ...images } = options
  const addresses = wanted.map((one) => addressOf(one, 'listen'))
  const controlAddress = addressOf(control, 'control')
  if (addresses.length === 0) throw argumentError('listen', 'missing; write HOST:PORT or unix:PATH')
  if ('host' in controlAddress) {
    throw argumentError('control', 'has to be a Unix socket, which others cannot use: unix:PATH')
  }
  if (controlAddress.path.startsWith('\0')) {
    throw argumentError('control', 'an abstract socket is open to all users; write unix:PATH')
  }
  const tls = await certificate(tlsCert, tlsKey)
  const local = addresses.find((one) => 'path' in one)
  const unixSocket = local && 'path' in local ? local.path : undefined
  const server = createImageServer({ ...images, unixSocket })
  const running: Server[] = []
  try {
    const begin = async (address: Address, handler: RequestListener, mine = false) => {
      const one = tls && 'host' in address ? createTlsServer(tls, handler) : createServer(handler)
      server.configure(one)
      const at = await listen(one, address, { mine })
      running.push(one)
      log('serve', () => `listening at ${formatAddress(at)}`)
      return formatAddress(at)
    }
    const at: string[] = []
    for (const address of addresses) at.push(await begin(address, server.handler))
    onListening?.({ listen: at, control: await begin(controlAddress, server.control, true) })
    await aborted(signal)
    throw abortedError('serve', signal!)
  } finally {
    await stop(running, server)
  }
}

function aborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve()
    else signal?.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** No new connections; requests under way have some time, and then all tickets end. */
async function stop(servers: readonly Server[], images: ImageServer): Promise<void> {
  const closed = Promise.all(
    servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))),
  )
  for (const server of servers) server.closeIdleConnections()
  const timer = setTimeout(() => {
    for (const server of servers) server.closeAllConnections()
  }, DRAIN_MS)
  await closed
  clearTimeout(timer)
  await images.close()
}

async function certificate(
  cert: string | undefined,
  key: string | undefined,
): Promise<{ cert: Buffer; key: Buffer } | undefined> {
  if (cert === undefined && key === undefined) return undefined
  if (cert === undefined) throw argumentError('tlsCert', 'missing: the certificate of the key')
  if (key === undefined) throw argumentError('tlsKey', 'missing: the key of the certificate')
  const read = (path: string) =>
    readFile(path).catch((error) => {
      throw ioError(path, error)
    })
  const files = { cert: await read(cert), key: await read(key) }
  try {
    createTlsServer(files)
    return files
  } catch (error) {
    throw new BackupError('IO', cert, `cannot be used with ${key}: ${messageOf(error)}`, {
      cause: error,
    })
  }
}
