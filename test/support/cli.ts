import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Io } from '../../lib/cli/io.ts'
import { encodeText } from '../../lib/text.ts'
import { THOROUGH } from './effort.ts'

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

/** The tests of the program itself: a thorough run starts it as its users do. */
const AS_USERS_DO = THOROUGH && /\/test\/cli\//.test(process.argv[1] ?? '')

/**
 * Runs our command line, and waits for its end: in a process of its own where the test does something to
 * that, or the program is what is tested; else in this one, which takes a tenth of the time.
 */
export async function runCli(
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { cwd, ...ofProcess } = options
  if (AS_USERS_DO || Object.keys(ofProcess).length > 0 || args.includes('--debug')) {
    return await spawnCli(args, options)
  }
  return await inTurn(() => runHere(args, cwd))
}

/** Runs our command line in a process of its own, and waits for its end. */
export function spawnCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
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

let before: Promise<unknown> = Promise.resolve()

/** A process has one working directory: runs in it come one after the other. */
async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const turn = before.then(work)
  before = turn.catch(() => {})
  return await turn
}

async function runHere(args: readonly string[], cwd = '.'): Promise<CliResult> {
  const { run } = await import('../../lib/cli/run.ts')
  const written = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
  const io: Io = {
    canDraw: false,
    columns: 80,
    stdoutIsTerminal: false,
    async writeBytes(bytes) {
      written.stdout.push(Buffer.from(bytes))
    },
    async stdout(text) {
      written.stdout.push(encodeText(text))
    },
    stderr(text) {
      written.stderr.push(encodeText(text))
    },
    interruptible: (work) => work(new AbortController().signal),
  }
  const home = process.cwd()
  process.chdir(cwd)
  try {
    const status = await run(() => args, io)
    const [stdout, stderr] = [written.stdout, written.stderr].map((all) => `${Buffer.concat(all)}`)
    return { status, signal: null, stdout, stderr }
  } finally {
    process.chdir(home)
  }
}
