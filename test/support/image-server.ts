/** An image server of ours in this process, and plain HTTP clients for it. */
import { Agent, createServer, type IncomingHttpHeaders, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { Test } from 'tap'
import type { ImageServer, ImageServerOptions, TicketRequest } from '../../lib/index.ts'
import { createImageServer } from '../../lib/index.ts'

/** An answer, whole. */
export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
  /** Of the body. */
  readonly text: string
  /** Of the body. */
  // biome-ignore lint/suspicious/noExplicitAny: what it is, the test says
  readonly json: any
}

/** What is asked. */
export interface Asked {
  headers?: Record<string, string>
  body?: string | Buffer
}

/** A server of images and tickets, on a port of this host. */
export interface RunningImages extends ImageServer {
  readonly port: number
  readonly controlPort: number
  /** Adds a ticket: read-only and of a minute, unless it says otherwise. */
  ticket(fields: Partial<TicketRequest> & Pick<TicketRequest, 'url' | 'size'>): Promise<string>
  /** Asks for an image. */
  ask(method: string, path: string, asked?: Asked): Promise<Answer>
  /** Asks for a ticket. */
  askControl(method: string, path: string, asked?: Asked): Promise<Answer>
}

/** Serves until the test ends. */
export async function startImages(
  t: Test,
  options: ImageServerOptions = {},
): Promise<RunningImages> {
  const images = createImageServer(options)
  const [port, controlPort] = await Promise.all(
    [images.handler, images.control].map(async (handler) => {
      const server = createServer(handler)
      images.configure(server)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      t.teardown(() => {
        server.closeAllConnections()
        server.close()
      })
      return (server.address() as AddressInfo).port
    }),
  )
  t.teardown(() => images.close())
  return {
    ...images,
    port,
    controlPort,
    ticket: (fields) => images.tickets.add({ ops: ['read'], timeout: 60, ...fields }),
    ask: (method, path, asked) => ask(port, method, path, asked),
    askControl: (method, path, asked) => ask(controlPort, method, path, asked),
  }
}

/** One request on a connection of its own. */
export function ask(
  port: number,
  method: string,
  path: string,
  asked: Asked = {},
): Promise<Answer> {
  const { body, headers = {} } = asked
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': `${Buffer.byteLength(body)}` }
    const agent = new Agent({ keepAlive: true })
    const sent = request({
      host: '127.0.0.1',
      port,
      method,
      path,
      agent,
      headers: { ...length, ...headers },
    })
    sent.on('error', reject).on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk) => chunks.push(chunk)).on('error', reject)
      response.on('end', () => {
        const whole = Buffer.concat(chunks)
        // After the answer, by which the server leaves the connection open.
        agent.destroy()
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          body: whole,
          get text() {
            return whole.toString()
          },
          get json() {
            return JSON.parse(whole.toString())
          },
        })
      })
    })
    sent.end(body)
  })
}

/** Sends bytes as they are, and returns all that comes until the server closes. */
export function raw(port: number, ...pieces: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    socket.setEncoding('latin1').on('data', (data) => {
      text += data
    })
    socket.on('error', reject).on('close', () => resolve(text))
    socket.on('end', () => socket.end())
    for (const piece of pieces) socket.write(piece, 'latin1')
    socket.end()
  })
}
