/**
 * A small NBD server for tests, in this process, which answers as a test has it: what no honest
 * server does, and nothing that depends on time. Fixed newstyle, with structured replies (the NBD
 * project's doc/proto.md).
 */
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { socketDirectory, unixUri } from './server.ts'

/** A client's request to an export. */
export interface NbdRequest {
  type: 'read' | 'write' | 'disconnect' | 'flush' | 'trim' | 'status' | 'zero'
  offset: number
  length: number
  /** From 1 on, in the order in which they came. */
  connection: number
}

/** Sends a chunk of an answer; `last` ends it. */
export type SendChunk = (type: number, payload: Buffer, last?: boolean) => void

/** Chunk types. */
export const CHUNK = { none: 0, data: 1, hole: 2, status: 5, error: 32769 } as const

export interface NbdServerOptions {
  size?: number | bigint
  multiConn?: boolean
  readOnly?: boolean
  /** Of offsets and lengths. */
  blockSizes?: { min: number; preferred: number; max: number }
  description?: string
  /** Called for a connection that was made, before the greeting; false: it is left at that. */
  accept?(connection: number, socket: Socket): boolean
  /** In place of the answer to an option of the negotiation; true: it was given. */
  option?(option: number, socket: Socket, connection: number): boolean
  /** In place of the usual answer: zeroes, data everywhere, success. True: it was given. */
  answer?(request: NbdRequest, send: SendChunk, socket: Socket): boolean
}

export interface NbdServer {
  readonly uri: string
  /** The requests so far. */
  readonly requests: NbdRequest[]
  /** Connections that were made. */
  readonly connections: number
  /** Resolves with the first request, asked already or still to come, that fits. */
  asked(fits: (request: NbdRequest) => boolean): Promise<NbdRequest>
  /** Of what follows. */
  options: NbdServerOptions
  /** Drops every connection. */
  drop(): void
}

const TYPES = ['read', 'write', 'disconnect', 'flush', 'trim', '', 'zero', 'status'] as const
const OPTION_MAGIC = 0x3e889045565a9n
const OPTION = { abort: 2, info: 6, go: 7, structured: 8, list: 9, set: 10 }
const REPLY = { ack: 1, info: 3, context: 4, unsupported: 0x80000001 }

/** A reply to an option of the negotiation. */
export function optionReply(
  option: number,
  type: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(20)
  head.writeBigUInt64BE(OPTION_MAGIC, 0)
  head.writeUInt32BE(option, 8)
  head.writeUInt32BE(type, 12)
  head.writeUInt32BE(payload.length, 16)
  return Buffer.concat([head, payload])
}

/** The payload of a data chunk. */
export function dataChunk(offset: number, bytes: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeBigUInt64BE(BigInt(offset))
  return Buffer.concat([head, bytes])
}

/** The payload of a status chunk: pairs of length and flags. */
export function statusChunk(context: number, ...runs: number[]): Buffer {
  const payload = Buffer.alloc(4 + runs.length * 4)
  for (const [i, value] of [context, ...runs].entries()) payload.writeUInt32BE(value, i * 4)
  return payload
}

/** The payload of an error chunk. */
export function errorChunk(errno: number): Buffer {
  const payload = Buffer.alloc(6)
  payload.writeUInt32BE(errno)
  return payload
}

/** Serves on a Unix socket until the test ends. */
export async function startNbdServer(t: Test, options: NbdServerOptions = {}): Promise<NbdServer> {
  const socket = join(socketDirectory(t), 'nbd')
  const sockets = new Set<Socket>()
  const waiting = new Set<(request: NbdRequest) => void>()
  let connections = 0
  const running: NbdServer = {
    uri: unixUri(socket),
    requests: [],
    get connections() {
      return connections
    },
    asked(fits) {
      const before = running.requests.find(fits)
      if (before) return Promise.resolve(before)
      return new Promise((resolve) => {
        const look = (request: NbdRequest): void => {
          if (!fits(request)) return
          waiting.delete(look)
          resolve(request)
        }
        waiting.add(look)
      })
    },
    options,
    drop() {
      for (const one of sockets) one.destroy()
    },
  }
  const server: Server = createServer((client) => {
    const connection = ++connections
    sockets.add(client)
    client.on('close', () => sockets.delete(client)).on('error', () => {})
    if (running.options.accept?.(connection, client) === false) return
    serve(client, connection, running, (request) => {
      running.requests.push(request)
      for (const look of [...waiting]) look(request)
    }).catch(() => client.destroy())
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  t.teardown(async () => {
    running.drop()
    await new Promise((resolve) => server.close(resolve))
  })
  return running
}

/** Reads exactly as many bytes as are wanted, one read after the other. */
class Input {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(socket: Socket) {
    this.#chunks = socket[Symbol.asyncIterator]()
  }

  async read(length: number): Promise<Buffer> {
    const parts = [this.#rest]
    let have = this.#rest.length
    while (have < length) {
      const { value, done } = await this.#chunks.next()
      if (done) throw new Error('the client is gone')
      parts.push(value)
      have += value.length
    }
    const all = Buffer.concat(parts)
    this.#rest = all.subarray(length)
    return all.subarray(0, length)
  }
}

async function serve(
  client: Socket,
  connection: number,
  server: NbdServer,
  report: (request: NbdRequest) => void,
): Promise<void> {
  const input = new Input(client)
  client.write(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.of(0, 3)]))
  await input.read(4)
  if (!(await negotiate(client, input, connection, server))) return
  for (;;) {
    const head = await input.read(28)
    const type = TYPES[head.readUInt16BE(6)] || 'flush'
    const offset = Number(head.readBigUInt64BE(16))
    const length = head.readUInt32BE(24)
    const request = { type, offset, length, connection }
    if (type === 'write') await input.read(length)
    report(request)
    if (type === 'disconnect') return void client.end()
    const send: SendChunk = (chunk, payload, last = true) => {
      const reply = Buffer.alloc(20)
      reply.writeUInt32BE(0x668e33ef, 0)
      reply.writeUInt16BE(last ? 1 : 0, 4)
      reply.writeUInt16BE(chunk, 6)
      head.copy(reply, 8, 8, 16)
      reply.writeUInt32BE(payload.length, 16)
      client.write(Buffer.concat([reply, payload]))
    }
    if (server.options.answer?.(request, send, client)) continue
    if (type === 'read') send(CHUNK.data, dataChunk(offset, Buffer.alloc(length)))
    else if (type === 'status') send(CHUNK.status, statusChunk(1, length, 0))
    else send(CHUNK.none, Buffer.alloc(0))
  }
}

/** Until requests may come; false if the client does not want to go on. */
async function negotiate(
  client: Socket,
  input: Input,
  connection: number,
  server: NbdServer,
): Promise<boolean> {
  for (;;) {
    const head = await input.read(16)
    const option = head.readUInt32BE(8)
    const data = await input.read(head.readUInt32BE(12))
    if (server.options.option?.(option, client, connection)) continue
    const reply = (type: number, payload?: Buffer) =>
      client.write(optionReply(option, type, payload))
    if (option === OPTION.structured) {
      reply(REPLY.ack)
    } else if (option === OPTION.list || option === OPTION.set) {
      for (const [i, name] of contextsOf(data).entries()) {
        reply(REPLY.context, Buffer.concat([Buffer.of(0, 0, 0, i + 1), name]))
      }
      reply(REPLY.ack)
    } else if (option === OPTION.info || option === OPTION.go) {
      for (const info of infosOf(server.options)) reply(REPLY.info, info)
      reply(REPLY.ack)
      if (option === OPTION.go) return true
    } else if (option === OPTION.abort) {
      return false
    } else {
      reply(REPLY.unsupported)
    }
  }
}

function contextsOf(data: Buffer): Buffer[] {
  let at = 4 + data.readUInt32BE(0)
  const names = Array.from({ length: data.readUInt32BE(at) }, () => {
    at += 4
    const length = data.readUInt32BE(at)
    const name = data.subarray(at + 4, at + 4 + length)
    at += length
    return name
  })
  return names
}

function infosOf({
  size = 2 ** 20,
  multiConn = false,
  readOnly = false,
  blockSizes,
  description,
}: NbdServerOptions): Buffer[] {
  const exported = Buffer.alloc(12)
  exported.writeBigUInt64BE(BigInt(size), 2)
  // Has flags, flush, trim, write zeroes.
  exported.writeUInt16BE(1 | 4 | 32 | 64 | (readOnly ? 2 : 0) | (multiConn ? 256 : 0), 10)
  const infos = [exported]
  if (blockSizes) {
    const sizes = Buffer.alloc(14)
    sizes.writeUInt16BE(3, 0)
    for (const [i, value] of Object.values(blockSizes).entries()) {
      sizes.writeUInt32BE(value, 2 + i * 4)
    }
    infos.push(sizes)
  }
  if (description !== undefined) {
    infos.push(Buffer.concat([Buffer.of(0, 2), Buffer.from(description)]))
  }
  return infos
}
