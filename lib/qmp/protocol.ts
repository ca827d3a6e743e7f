/** Messages of a QMP connection (QEMU's docs/interop/qmp-spec.rst): JSON objects, one per line. */

/** Any JSON object. */
export type QmpObject = Record<string, unknown>

/** The server's greeting. */
export interface QmpGreeting {
  version: { qemu: { major: number; minor: number; micro: number }; package: string }
  capabilities: readonly string[]
}

/** Something that happened by itself. */
export interface QmpEvent {
  event: string
  data: QmpObject
  /** When, by the server's clock, in milliseconds since 1970; undefined if the server has none. */
  time?: number
}

/** A line from the server. */
export type QmpMessage =
  | { kind: 'greeting'; greeting: QmpGreeting }
  | { kind: 'event'; event: QmpEvent }
  | { kind: 'return'; id: unknown; value: unknown }
  | { kind: 'error'; id: unknown; qmpClass: string; description: string }

/** The server broke the protocol; the message says how. */
export class QmpProtocolError extends Error {
  override readonly name = 'QmpProtocolError'
}

/**
 * Reads one line.
 * @throws QmpProtocolError if it is not a message
 */
export function parseMessage(line: string): QmpMessage {
  const message = parseObject(line)
  const { id, event, QMP: greeting, error } = message
  if (isObject(greeting)) return { kind: 'greeting', greeting: greetingOf(greeting) }
  if (typeof event === 'string') {
    const { data, timestamp } = message
    return { kind: 'event', event: { event, data: objectOr(data), time: timeOf(timestamp) } }
  }
  if (isObject(error)) {
    const { class: qmpClass, desc } = error
    return { kind: 'error', id, qmpClass: textOr(qmpClass), description: textOr(desc) }
  }
  if ('return' in message) return { kind: 'return', id, value: message.return }
  throw new QmpProtocolError('sent an object that is not a QMP message')
}

function parseObject(line: string): QmpObject {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new QmpProtocolError('sent a line that is not JSON', { cause })
  }
  if (!isObject(value)) throw new QmpProtocolError('sent a line that is not a JSON object')
  return value
}

function isObject(value: unknown): value is QmpObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function objectOr(value: unknown): QmpObject {
  return isObject(value) ? value : {}
}

function textOr(value: unknown): string {
  return typeof value === 'string' ? value : 'unknown'
}

function timeOf(timestamp: unknown): number | undefined {
  const { seconds, microseconds } = objectOr(timestamp)
  if (typeof seconds !== 'number' || typeof microseconds !== 'number' || seconds < 0) {
    return undefined
  }
  return seconds * 1000 + microseconds / 1000
}

function greetingOf({ version, capabilities }: QmpObject): QmpGreeting {
  const { qemu, package: packaged } = objectOr(version)
  const number = (value: unknown) => (typeof value === 'number' ? value : 0)
  const { major, minor, micro } = objectOr(qemu)
  return {
    version: {
      qemu: { major: number(major), minor: number(minor), micro: number(micro) },
      package: typeof packaged === 'string' ? packaged : '',
    },
    capabilities: Array.isArray(capabilities)
      ? capabilities.filter((one) => typeof one === 'string')
      : [],
  }
}

/**
 * Maximum bytes of a line: `query-named-block-nodes` of a hundred disks with long chains is a few MiB.
 */
export const MAX_LINE_BYTES = 32 * 2 ** 20

/** Splits received bytes into lines. However small the pieces, it holds at most twice the maximum. */
export class LineReader {
  readonly #max: number
  /** The beginning of a line, and room for more of it. */
  #held = Buffer.alloc(0)
  #length = 0

  /** @param max maximum bytes of a line */
  constructor(max = MAX_LINE_BYTES) {
    this.#max = max
  }

  /**
   * Takes the next bytes received.
   * @returns the lines that are complete by it, without empty ones
   * @throws QmpProtocolError if a line is too long
   */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      this.#add(chunk.subarray(from, end))
      const line = this.#held.toString('utf8', 0, this.#length).trim()
      if (line !== '') lines.push(line)
      this.reset()
      from = end + 1
    }
    if (from < chunk.length) this.#add(chunk.subarray(from))
    return lines
  }

  /** Forgets the line that has begun. */
  reset(): void {
    this.#held = Buffer.alloc(0)
    this.#length = 0
  }

  #add(part: Buffer): void {
    const length = this.#length + part.length
    if (length > this.#max) {
      throw new QmpProtocolError(`sent a line of more than ${this.#max} bytes`)
    }
    if (length > this.#held.length) {
      const grown = Buffer.alloc(Math.max(length, Math.min(2 * this.#held.length, this.#max)))
      this.#held.copy(grown, 0, 0, this.#length)
      this.#held = grown
    }
    part.copy(this.#held, this.#length)
    this.#length = length
  }
}
