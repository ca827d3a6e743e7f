import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { BackupError } from '../../../lib/errors.ts'

/** Time that a server gets to start, or to end before it is killed, milliseconds. */
const PATIENCE = 20_000
/** Capacity of `sun_path`, without its closing zero. */
const LONGEST_SOCKET = 107

/** Directory of a server's files, removed when the case ends. */
export interface Stage {
  /** Directory for sockets, images and other files of this case. */
  scratch: string
  signal: AbortSignal
  /** Has something done when the case ends, however it ends; the last one said comes first. */
  atEnd(end: () => Promise<void>): void
}

/** A server that runs. */
export interface Server {
  pid: number
  /** Ends it, and waits until it has closed its files. May be called twice. */
  stop(): Promise<void>
}

/**
 * Starts a server and waits until it serves. It ends with the case at the latest.
 * @param pidFile which it writes once it serves, and removes; also named in `argv`
 * @throws BackupError IO with its last words if it ends instead
 */
export async function startServer(argv: string[], pidFile: string, stage: Stage): Promise<Server> {
  stage.signal.throwIfAborted()
  // A process group of its own: Ctrl-C must not take the server from under its clients.
  const child = spawn(argv[0], argv.slice(1), {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const failed = (why: string) => new BackupError('IO', argv.join(' '), why)
  let words = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    words += text
  })
  const ended = once(child, 'exit').catch((error: Error) => {
    words ||= error.message
  })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const stop = async () => {
    child.kill()
    const timer = setTimeout(kill, PATIENCE)
    await ended
    clearTimeout(timer)
    process.off('exit', kill)
  }
  stage.atEnd(stop)

  let running = true
  void ended.then(() => {
    running = false
  })
  const deadline = Date.now() + PATIENCE
  while (!(await exists(pidFile))) {
    await Promise.race([pause(5, undefined, { signal: stage.signal }), ended])
    if (!running) throw failed(`ended: ${words.trim().split('\n').at(-1) || 'no message'}`)
    if (Date.now() > deadline) throw failed('does not serve')
  }
  return { pid: child.pid!, stop }
}

/**
 * @returns path of a new socket in the scratch directory
 * @throws BackupError BAD_TARGET if it is longer than a socket's may be
 */
export function socketPath({ scratch }: Stage, name: string): string {
  const path = join(scratch, name)
  if (Buffer.byteLength(path) > LONGEST_SOCKET) {
    const why = `longer than the ${LONGEST_SOCKET} bytes of a socket's path; take a shorter --dir`
    throw new BackupError('BAD_TARGET', path, why)
  }
  return path
}

/** The URI of an export on a Unix socket. */
export function socketUri(socket: string, name: string): string {
  return `nbd+unix:///${name}?socket=${socket.split('/').map(encodeURIComponent).join('/')}`
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
