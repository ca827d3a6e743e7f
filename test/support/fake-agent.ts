/** A guest agent for tests, in this process, which answers as a test has it. */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { socketDirectory } from './server.ts'

/** A command that came, and how to answer. */
export interface AgentCommand {
  execute: string
  arguments?: { id?: number }
  /** Answers, a line of JSON. */
  answer(value: unknown): void
  refuse(description: string, qmpClass?: string): void
  /** Resolves once the client has sent more. */
  followed: Promise<void>
  socket: Socket
}

export interface FakeAgent {
  readonly path: string
  /** Names of the commands that came, syncs not among them. */
  readonly commands: string[]
  /** What an agent would say of the guest's file systems. */
  state: 'frozen' | 'thawed'
}

/**
 * Listens on a Unix socket until the test ends. It answers one command after the other, as agents do.
 * @param special handles a command, and returns true; else it is answered as an agent with three file
 * systems would
 */
export async function startFakeAgent(
  t: Test,
  special: (command: AgentCommand) => boolean | Promise<boolean> = () => false,
  onConnect: (socket: Socket) => void = () => {},
): Promise<FakeAgent> {
  const sockets = new Set<Socket>()
  const agent: FakeAgent = {
    path: join(socketDirectory(t), 'agent'),
    commands: [],
    state: 'thawed',
  }
  const answerAsUsual = ({ execute, arguments: args, answer, refuse, socket }: AgentCommand) => {
    if (execute === 'guest-sync-delimited') {
      socket.write(Buffer.of(0xff))
      answer(args?.id)
    } else if (execute === 'guest-fsfreeze-freeze') {
      agent.state = 'frozen'
      answer(3)
    } else if (execute === 'guest-fsfreeze-thaw') {
      answer(agent.state === 'frozen' ? 3 : 0)
      agent.state = 'thawed'
    } else if (execute === 'guest-fsfreeze-status') {
      answer(agent.state)
    } else {
      refuse(`The command ${execute} has not been found`, 'CommandNotFound')
    }
  }
  const take = async (line: string, followed: Promise<void>, socket: Socket) => {
    let command: { execute: string; arguments?: { id?: number } }
    const send = (message: unknown) => socket.write(`${JSON.stringify(message)}\n`)
    const refuse: AgentCommand['refuse'] = (desc, qmpClass = 'GenericError') =>
      send({ error: { class: qmpClass, desc } })
    try {
      command = JSON.parse(line)
    } catch {
      refuse('JSON parse error')
      return
    }
    if (command.execute !== 'guest-sync-delimited') agent.commands.push(command.execute)
    const answer = (value: unknown) => void send({ return: value })
    const asked = { ...command, answer, refuse, followed, socket }
    if (!(await special(asked))) answerAsUsual(asked)
  }
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    onConnect(socket)
    let held = ''
    let last = Promise.resolve()
    let follow = () => {}
    socket.on('data', (chunk) => {
      // What has begun ends at the byte that JSON does not have, with an error.
      for (const byte of chunk) {
        follow()
        const ends = byte === 10 || byte === 0xff
        if (!ends) held += String.fromCharCode(byte)
        else if (held !== '') {
          const line = held
          held = ''
          const followed = new Promise<void>((resolve) => {
            follow = resolve
          })
          last = last.then(() => take(line, followed, socket))
        }
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(agent.path, resolve))
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return agent
}
