import { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { buildConnector } from 'undici'
import { argumentError, ioError } from '../../errors.ts'
import { readFile } from '../../files.ts'
import type { ImageAddress } from './address.ts'

/** How the server of an `https` URL is recognised. Default: by the authorities that Node knows. */
export interface TrustOptions {
  /** A file of PEM certificates of authorities, one of which must have signed the server's. */
  ca?: string
  /** SHA-256 of the server's own certificate, in hexadecimal: it must have this one. */
  fingerprint?: string
  /** Encrypt, and talk to whoever answers. */
  insecure?: boolean
}

/** Opens a connection to a server and makes sure that it is the right one. */
export type Connect = buildConnector.connector

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/**
 * How connections to a server are made. Without a word of the user nothing but a certificate that an
 * authority has signed for this host will do.
 * @param timeoutMs how long that may take
 * @throws BackupError USAGE for options that contradict each other, IO
 */
export async function connectorOf(
  { tls, socket }: Pick<ImageAddress, 'tls' | 'socket'>,
  options: TrustOptions,
  timeoutMs: number,
): Promise<Connect> {
  const { ca, fingerprint, insecure = false } = options
  if (!tls) {
    for (const [name, value] of Object.entries({
      ca,
      fingerprint,
      insecure: insecure || undefined,
    })) {
      if (value !== undefined) throw argumentError(name, 'is only for https')
    }
    return buildConnector({ socketPath: socket, timeout: timeoutMs, keepAlive: true })
  }
  if (insecure && (ca !== undefined || fingerprint !== undefined)) {
    const other = ca === undefined ? 'fingerprint' : 'ca'
    throw argumentError('insecure', `contradicts ${other}: that is checked, or nothing is`)
  }
  const pinned = fingerprint?.replaceAll(':', '').toLowerCase()
  const authorities = ca === undefined ? undefined : await authoritiesOf(ca)
  const connect = buildConnector({
    ca: authorities,
    // Given in any case: else NODE_TLS_REJECT_UNAUTHORIZED would decide.
    rejectUnauthorized: !insecure && (pinned === undefined || ca !== undefined),
    // Who goes by its certificate need not go by the host's name.
    ...(pinned !== undefined && { checkServerIdentity: () => undefined }),
    timeout: timeoutMs,
    // The certificate is looked at each time.
    maxCachedSessions: 0,
    keepAlive: true,
  })
  if (pinned === undefined) return connect
  return (target, callback) =>
    connect(target, (...[error, connected]) => {
      if (error) return callback(error, null)
      const found = certificateOf(connected)
      if (found === pinned) return callback(null, connected)
      connected.destroy()
      callback(new WrongCertificate(found), null)
    })
}

/** The server has another certificate than the one that was named. */
export class WrongCertificate extends Error {
  constructor(found: string | undefined) {
    const has = found === undefined ? 'none' : `one with SHA-256 ${found}`
    super(`the server's certificate is not the one with the fingerprint given: it has ${has}`)
  }
}

function certificateOf(socket: Socket | TLSSocket): string | undefined {
  if (!('getPeerX509Certificate' in socket)) return undefined
  return socket.getPeerX509Certificate()?.fingerprint256.replaceAll(':', '').toLowerCase()
}

async function authoritiesOf(path: string): Promise<string[]> {
  let text: string
  try {
    text = (await readFile(path)).toString('latin1')
  } catch (error) {
    throw ioError(path, error)
  }
  const found = text.match(PEM) ?? []
  if (found.length === 0) throw argumentError('ca', `${path} holds no PEM certificate`)
  for (const one of found) {
    try {
      new X509Certificate(one)
    } catch {
      throw argumentError('ca', `a certificate in ${path} cannot be read`)
    }
  }
  return found
}
