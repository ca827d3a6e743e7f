/** NBD servers that do what no honest one does: every command ends, in bounds, with one clear line. */
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { effort, THOROUGH } from '../support/effort.ts'
import { measured } from '../support/hostile.ts'
import { runHostile } from '../support/hostile-cases.ts'
import type { Taken } from '../support/hostile-runner.ts'
import {
  CHUNK,
  dataChunk,
  errorChunk,
  type NbdServerOptions,
  optionReply,
  startNbdServer,
  statusChunk,
} from '../support/nbd-server.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20
/** Peak memory, KiB. */
const MEMORY = 200 * 1024

type Ended = Pick<Taken, 'args' | 'status' | 'stderr' | 'memory'>

const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.of(0, 3)])
const OPTION = { go: 7, list: 9, set: 10 }
const REPLY = { ack: 1, info: 3, context: 4, unsupported: 0x80000001 }
const NO_ANSWER = /no answer within 1 s|does not answer in time|falls silent again and again/
const CLOSED = /closed the connection/

/** Sends bytes one by one, a second apart. */
function dribble(socket: Socket, bytes: Buffer): true {
  let sent = 0
  const timer = setInterval(() => {
    if (sent === bytes.length || socket.destroyed) clearInterval(timer)
    else socket.write(bytes.subarray(sent, ++sent))
  }, 1000)
  socket.on('close', () => clearInterval(timer))
  return true
}

function context(option: number, id: number, name: string): Buffer {
  return optionReply(
    option,
    REPLY.context,
    Buffer.concat([Buffer.of(0, 0, 0, id), Buffer.from(name)]),
  )
}

/** Answers the options about contexts. */
function contexts(replies: (option: number) => Buffer[]): NbdServerOptions {
  return {
    option(option, socket) {
      if (option !== OPTION.set && option !== OPTION.list) return false
      for (const reply of replies(option)) socket.write(reply)
      return true
    },
  }
}

/** Does something in place of the answer to each request of a type. */
function instead(
  wanted: readonly string[],
  answer: NonNullable<NbdServerOptions['answer']>,
): NbdServerOptions {
  return { answer: (request, ...rest) => wanted.includes(request.type) && answer(request, ...rest) }
}

const closing: NonNullable<NbdServerOptions['answer']> = (_request, _send, socket) => {
  socket.destroy()
  return true
}
const blockSizes = (min: number, preferred: number, max: number) => ({
  blockSizes: { min, preferred, max },
})

/** What a server does, and what those commands say that fail; undefined: none does. */
const SERVERS: Record<string, [NbdServerOptions, RegExp?]> = {
  'answers no context': [contexts((o) => [optionReply(o, REPLY.ack)]), /does not export bitmap/],
  'refuses contexts': [
    contexts((o) => [optionReply(o, REPLY.unsupported)]),
    /does not export bitmap/,
  ],
  'says nothing about contexts': [contexts(() => []), NO_ANSWER],
  'has a million contexts': [
    contexts((o) => {
      const many = Buffer.concat(
        Array.from({ length: 10_000 }, (_, i) => context(o, i % 200, `x:${i}`)),
      )
      return new Array(100).fill(many)
    }),
    /never comes to the end of its negotiation/,
  ],
  'has contexts with names of 4096 bytes': [
    contexts((o) => [
      ...Array.from({ length: 50 }, (_, i) => context(o, i + 2, 'x'.repeat(4096))),
      optionReply(o, REPLY.ack),
    ]),
    /does not export bitmap/,
  ],
  'tells of its export a million times': [
    {
      option(option, socket) {
        if (option !== OPTION.go) return false
        const info = optionReply(option, REPLY.info, Buffer.of(0, 9))
        const many = Buffer.concat(new Array(10_000).fill(info))
        for (let i = 0; i < 100; i++) socket.write(many)
        return true
      },
    },
    /never comes to the end of its negotiation/,
  ],
  'describes its export in 4096 bytes': [{ description: 'd'.repeat(4096) }],
  'says nothing': [{ accept: () => false }, NO_ANSWER],
  'sends its greeting a byte a second': [
    {
      accept(_, socket) {
        return !dribble(socket, GREETING)
      },
    },
    NO_ANSWER,
  ],
  'sends its replies a byte a second': [
    { option: (o, socket) => dribble(socket, optionReply(o, REPLY.unsupported)) },
    NO_ANSWER,
  ],
  'sends status a byte a second': [
    instead(['status'], (_r, _s, socket) => dribble(socket, Buffer.alloc(100))),
    NO_ANSWER,
  ],
  'answers reads a byte a second': [
    instead(['read'], (_r, _s, socket) => dribble(socket, Buffer.alloc(100))),
    NO_ANSWER,
  ],
  'answers writes a byte a second': [
    instead(['write', 'zero'], (_r, _s, socket) => dribble(socket, Buffer.alloc(100))),
    NO_ANSWER,
  ],
  'sends garbage': [
    {
      accept(_, socket) {
        socket.write(Buffer.alloc(65536, 'A'))
        return false
      },
    },
    /did not send expected NBD magic/,
  ],
  'closes before its greeting': [
    {
      accept(_, socket) {
        socket.destroy()
        return false
      },
    },
    CLOSED,
  ],
  'closes in its greeting': [
    {
      accept(_, socket) {
        socket.end('NBDM')
        return false
      },
    },
    CLOSED,
  ],
  'closes at the first option': [
    {
      option(_, socket) {
        socket.destroy()
        return true
      },
    },
    CLOSED,
  ],
  'closes when it is asked for contexts': [
    {
      option(option, socket) {
        if (option === OPTION.set) socket.destroy()
        return option === OPTION.set
      },
    },
    CLOSED,
  ],
  'closes when the export is wanted': [
    {
      option(option, socket) {
        if (option === OPTION.go) socket.destroy()
        return option === OPTION.go
      },
    },
    CLOSED,
  ],
  'closes when it is asked for status': [instead(['status'], closing), CLOSED],
  'closes when it is read': [instead(['read'], closing), CLOSED],
  'closes in mid answer': [
    instead(['read'], (_r, _s, socket) => {
      socket.end(Buffer.alloc(10))
      return true
    }),
    /closed the connection|breaks the protocol|is lost/,
  ],
  'closes when it is written to': [instead(['write', 'zero'], closing), CLOSED],
  'closes when it is to flush': [instead(['flush'], closing), CLOSED],
  'fails a read, and then sends its data': [
    instead(['read'], ({ offset, length }, send) => {
      send(CHUNK.error, errorChunk(5), false)
      send(CHUNK.data, dataChunk(offset, Buffer.alloc(length, 7)))
      return true
    }),
    /read at \d+: input\/output error/,
  ],
  'answers status with runs of no length': [
    instead(['status'], (_, send) => {
      send(CHUNK.status, statusChunk(1, 0, 0, 0, 1))
      return true
    }),
    /answer about the bytes at 0 is empty/,
  ],
  'answers status with runs that are too long': [
    instead(['status'], (_, send) => {
      send(CHUNK.status, statusChunk(1, 0xffffffff, 0, 0xffffffff, 3))
      return true
    }),
  ],
  'answers status of a context that it does not have': [
    instead(['status'], ({ length }, send) => {
      send(CHUNK.status, statusChunk(77, length, 0))
      return true
    }),
    /answer about the bytes at 0 is empty/,
  ],
  'has blocks of no bytes': [blockSizes(0, 0, 0)],
  'has blocks of three bytes': [blockSizes(3, 4096, 32 * MIB)],
  'prefers blocks of three bytes': [blockSizes(512, 3, 32 * MIB)],
  'has blocks of 2^32 - 1 bytes': [blockSizes(0xffffffff, 0xffffffff, 0xffffffff)],
  'takes requests of 2^32 - 1 bytes': [blockSizes(1, 4096, 0xffffffff)],
  'takes requests of 1000 bytes': [blockSizes(512, 4096, 1000)],
  'takes requests that are smaller than its blocks': [blockSizes(4096, 4096, 512)],
  'has blocks that are larger than its export': [
    { size: 4096, ...blockSizes(65536, 65536, 32 * MIB) },
    /its size of 4096 bytes is not a multiple of its block size of 65536|holds 4 KiB/,
  ],
}

/** @param timeout seconds that the server may take */
const COMMANDS = (uri: string, timeout: string) => [
  ['full', '--no-progress', '--timeout', timeout, uri, 'out.qcow2'],
  [
    'incremental',
    '--no-progress',
    '--timeout',
    timeout,
    '--bitmap',
    'b',
    '--backing',
    'full.qcow2',
    uri,
    'inc.qcow2',
  ],
  ['extents', '--timeout', timeout, uri],
  ['diff', '--timeout', timeout, uri, 'full.qcow2', '--output', 'list.json'],
  ['restore', '--no-progress', '--timeout', timeout, 'full.qcow2', uri],
]

function makeImages(t: Test): string {
  const dir = t.testdir({ images: {} })
  const full = join(dir, 'images', 'full.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', full, '2M')
  qemuIo(full, 'write -P 3 0 1M')
  return dir
}

/** Runs commands in one other process. */
async function runAlone(directory: string, commands: string[][]): Promise<Ended[]> {
  const named = commands.map((args) => ({ args }))
  const { taken, crash } = (await runHostile([{ directory, commands: named }])).get(directory)!
  if (crash !== undefined) throw new Error(crash)
  return taken
}

/** Runs them in this process, which holds the server too. */
async function runHere(dir: string, commands: string[][]): Promise<Ended[]> {
  const ended: Ended[] = []
  for (const args of commands) {
    const cwd = join(dir, 'work')
    rmSync(cwd, { recursive: true, force: true })
    cpSync(join(dir, 'images'), cwd, { recursive: true })
    const { status, stderr, memory } = await measured(cwd, args)
    ended.push({ args, status: status!, stderr, memory })
  }
  return ended
}

for (const [index, [name, [options, says]]] of Object.entries(SERVERS).entries()) {
  t.test(`every command ends in bounds: a server that ${name}`, async (t) => {
    const dir = makeImages(t)
    mkdirSync(join(dir, 'work'), { recursive: true })
    const server = await startNbdServer(t, {
      size: 2 * MIB,
      multiConn: index % 2 === 0,
      ...options,
    })
    // Short only where it has to pass: a busy machine may take its time for anything.
    const all = COMMANDS(server.uri, says === NO_ANSWER ? '1' : '30')
    // In a quick run two of the five, in turn.
    const commands = all.filter((_, i) => (i + index) % 5 < effort(2, 5))
    const ended = await (THOROUGH ? runAlone : runHere)(dir, commands)
    t.equal(ended.length, commands.length, 'every command ends')
    for (const { args, status, stderr, memory } of ended) {
      const told = `${args[0]}: ${stderr}`
      t.ok(memory < MEMORY, `${args[0]}: ${memory} KiB`)
      t.ok(status === 0 || (says && status === 1), told)
      if (status === 0) continue
      t.match(stderr, says, told)
      t.match(stderr, /^qcow2-backup: [^\n]*\n$/, `${told}: one line`)
      t.notMatch(stderr, /internal error|Transport endpoint|unexpectedly/, told)
    }
    if (says && effort(false, true))
      t.ok(
        ended.some(({ status }) => status === 1),
        'some fail',
      )
  })
}
