import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** The program, as its `bin` entry starts it. */
export const CLI = fileURLToPath(new URL('../../lib/cli/main.cjs', import.meta.url))

/** How a run of the program ended. */
export interface CliResult {
  /** The exit status; null if a signal ended it. */
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface CliOptions {
  cwd?: string
  /** Variables added to the environment; undefined removes one. */
  env?: Record<string, string | undefined>
  /** Called when the program has started, for instance to send it signals. */
  onStart?: (child: ChildProcess) => void
  /** Called with each piece of its stderr. */
  onStderr?: (text: string, child: ChildProcess) => void
}

/** Runs our command line in a process of its own, and waits for its end. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
    options.onStderr?.(text, child)
  })
  options.onStart?.(child)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }))
  })
}
