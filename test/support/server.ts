/** Starting servers of other makers for a test, and ending them with it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'

/** Far more than a server takes to start or to end on a busy machine. */
const PATIENCE_MS = 20_000

/** A server that runs. */
export interface RunningServer {
  readonly process: ChildProcess
  /** Its stderr so far. */
  stderr(): string
  /** Ends it, by SIGTERM if no other signal is given, and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/**
 * A directory that is removed at the end of the test. For sockets, whose paths may not be longer
 * than 107 bytes: those of `t.testdir()` are.
 */
export function socketDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'nbd-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** The URI of an export on a Unix socket. */
export function unixUri(socket: string, name = '', scheme: 'nbd' | 'nbds' = 'nbd'): string {
  return `${scheme}+unix:///${encodeURIComponent(name)}?socket=${socket}`
}

/**
 * Starts a server and waits until it serves. It ends with the test.
 * @param pidFile which it writes once it serves; also named in `args`
 * @throws Error with its stderr if it ends instead
 */
export async function startServer(
  t: Test,
  tool: string,
  args: readonly string[],
  pidFile: string,
): Promise<RunningServer> {
  const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', () => resolve())
  })
  const kill = () => child.kill('SIGKILL')
  process.on('exit', kill)
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    const timer = setTimeout(kill, PATIENCE_MS)
    await ended
    clearTimeout(timer)
    process.off('exit', kill)
  }
  t.teardown(() => stop())
  const deadline = Date.now() + PATIENCE_MS
  while (!existsSync(pidFile)) {
    await Promise.race([delay(5), ended])
    if (hasEnded() || Date.now() > deadline) {
      throw new Error(`${tool} ${args.join(' ')} does not serve: ${stderr}`)
    }
  }
  return { process: child, stderr: () => stderr, stop }
}
