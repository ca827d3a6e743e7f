import type { ImageConnection } from './connection.ts'
import { Broken, Refusal } from './failure.ts'
import { jsonObject, smallAnswer } from './small-answer.ts'

/** What a server says that it can do with an image. */
export interface Abilities {
  /** `extents`, `zero`, `flush`, `checksum`; those of old servers are none. */
  readonly features: ReadonlySet<string>
  /** Connections that may read, and write, at the same time. */
  readonly maxReaders: number
  readonly maxWriters: number
  /** Whether the ticket is for writing; undefined if the server does not tell. */
  readonly canWrite?: boolean
  /** Of the same service on the same host; an abstract one begins with a NUL. */
  readonly socket?: string
}

/** Servers that do not tell how many connections they take are asked over one. */
const OLD: Abilities = { features: new Set(), maxReaders: 1, maxWriters: 1 }

/** The longest name of a socket that the system has, bytes. */
const MAX_SOCKET_NAME = 108

/**
 * Asks for the abilities: OPTIONS, which also makes sure that the ticket is good, and renews it.
 * @throws as ImageConnection.send; Broken
 */
export async function askAbilities(
  connection: ImageConnection,
  signal?: AbortSignal,
): Promise<Abilities> {
  try {
    const { status, headers, body } = await smallAnswer(connection, { method: 'OPTIONS', signal })
    if (status === 204 || body.length === 0) return OLD
    return readAbilities(jsonObject(body), headers.allow)
  } catch (error) {
    // Before the API had OPTIONS, GET and PUT were all.
    if (error instanceof Refusal && error.status === 405) return OLD
    throw error
  }
}

/** @throws Broken */
function readAbilities(answer: Record<string, unknown>, allow: string | undefined): Abilities {
  const { features = [], unix_socket: socket } = answer
  if (!Array.isArray(features) || !features.every((one) => typeof one === 'string')) {
    throw new Broken('its features are not a list of names')
  }
  const isName = typeof socket === 'string' && socket.length > 1
  if (socket !== undefined && socket !== null && !isName) {
    throw new Broken('the name of its Unix socket is none')
  }
  return {
    features: new Set(features),
    maxReaders: countOf(answer, 'max_readers'),
    maxWriters: countOf(answer, 'max_writers'),
    canWrite: allow === undefined ? undefined : /\bPUT\b/.test(allow),
    // A name that is too long, and so no socket at all, is not asked for.
    ...(isName && Buffer.byteLength(socket) < MAX_SOCKET_NAME && { socket: socketName(socket) }),
  }
}

/** Servers write the NUL of an abstract socket as it is, or as their settings have it: `\0`. */
function socketName(name: string): string {
  return name.replace(/^\\0/, '\0')
}

function countOf(answer: Record<string, unknown>, key: 'max_readers' | 'max_writers'): number {
  const count = answer[key] ?? 1
  if (Number.isSafeInteger(count) && Number(count) > 0) return Number(count)
  throw new Broken(`its ${key} is not a number of connections`)
}
