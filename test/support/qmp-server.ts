/** A monitor for tests, in this process, which answers as a test has it. */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { socketDirectory } from './server.ts'

export interface QmpCommand {
  execute?: string
  'exec-oob'?: string
  arguments?: Record<string, unknown>
  id?: unknown
}

/** Handles a client's message; `send` writes a line. */
export type Answer = (command: QmpCommand, send: (message: unknown) => void, socket: Socket) => void

export const GREETING = {
  QMP: {
    version: { qemu: { major: 9, minor: 1, micro: 2 }, package: 'test' },
    capabilities: ['oob'],
  },
}

export interface FakeMonitor {
  readonly path: string
  /** The messages received so far, and their sender. */
  readonly commands: QmpCommand[]
  send(message: unknown): void
  drop(): void
}

/**
 * Listens on a Unix socket until the test ends.
 * @param answer of everything but the negotiation, which succeeds
 * @param greet in place of the greeting
 */
export async function startMonitor(
  t: Test,
  answer: Answer,
  greet: (socket: Socket) => void = (socket) => socket.write(`${JSON.stringify(GREETING)}\n`),
): Promise<FakeMonitor> {
  const path = join(socketDirectory(t), 'qmp')
  const sockets = new Set<Socket>()
  const monitor: FakeMonitor = {
    path,
    commands: [],
    send(message) {
      for (const socket of sockets) socket.write(`${JSON.stringify(message)}\r\n`)
    },
    drop() {
      for (const socket of sockets) socket.destroy()
    },
  }
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    greet(socket)
    const lines = createInterface({ input: socket })
    lines.on('error', () => {})
    lines.on('line', (line) => {
      const command = JSON.parse(line) as QmpCommand
      monitor.commands.push(command)
      const send = (message: unknown) => socket.write(`${JSON.stringify(message)}\r\n`)
      if (command.execute === 'qmp_capabilities') send({ return: {}, id: command.id })
      else answer(command, send, socket)
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(async () => {
    monitor.drop()
    await new Promise((resolve) => server.close(resolve))
  })
  return monitor
}
