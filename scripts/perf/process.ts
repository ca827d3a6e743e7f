import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { BackupError, ioError } from '../../lib/errors.ts'

/** How a command ended. */
export interface Finished {
  status: number | null
  stdout: string
  stderr: string
  /** Seconds from start to exit. */
  wall: number
}

/** Time that a command gets to clean up after an interrupt, milliseconds. */
const GRACE = 5000

/**
 * Runs a command to its end, without a shell. It gets a process group of its own, so that an abort
 * reaches its children too; they are interrupted first and killed only if they linger.
 * @param input its standard input; default: empty
 * @param onWords called when it says something on stderr
 * @throws BackupError IO if it cannot be started; the signal's reason after an abort
 */
export async function run(
  argv: string[],
  signal: AbortSignal,
  input: Iterable<Buffer> = [],
  onWords: () => void = () => {},
): Promise<Finished> {
  signal.throwIfAborted()
  const begin = process.hrtime.bigint()
  let end = begin
  const child = spawn(argv[0], argv.slice(1), {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
    onWords()
  })
  child.once('exit', () => {
    end = process.hrtime.bigint()
  })

  let killer: NodeJS.Timeout | undefined
  const stop = () => {
    killGroup(child.pid, 'SIGINT')
    killer = setTimeout(() => killGroup(child.pid, 'SIGKILL'), GRACE)
  }
  signal.addEventListener('abort', stop, { once: true })
  // A command that ends before it has read everything says itself why.
  pipeline(Readable.from(input), child.stdin).catch(() => {})
  try {
    const [status] = await once(child, 'close')
    signal.throwIfAborted()
    return { status, stdout, stderr, wall: Number(end - begin) / 1e9 }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    throw ioError(argv[0], error)
  } finally {
    signal.removeEventListener('abort', stop)
    clearTimeout(killer)
  }
}

/** Like `run`, for commands that have to succeed. @throws BackupError IO with its last words */
export async function succeed(
  argv: string[],
  signal: AbortSignal,
  input?: Iterable<Buffer>,
): Promise<Finished> {
  const finished = await run(argv, signal, input)
  requireSuccess(argv, finished)
  return finished
}

/** @throws BackupError IO with the command's last words, if its status is not 0 */
export function requireSuccess(argv: string[], { status, stderr }: Finished): void {
  if (status === 0) return
  const words = stderr.trim().split('\n').at(-1) || 'no message'
  throw new BackupError('IO', argv.join(' '), `ended with ${status}: ${words}`)
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // The group is gone already, which is all that was wanted.
  }
}
