import { execFile, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { promisify } from 'node:util'
import { abortedError, ioError, throwIfAborted } from '../errors.ts'
import { open } from '../files.ts'
import { encodeText } from '../text.ts'

/** Result of a program. */
export interface ProgramOutput {
  /** The exit status; 128 and its number for a signal that ended it. */
  status: number
  /** Files with its output. */
  stdout: string
  stderr: string
}

/** As shells have it. */
const BY_SIGNAL = 128

/**
 * Runs a program to its end, its output in files.
 * @param prefix of the names of the files
 * @throws BackupError IO if it cannot be run, ABORTED
 */
export async function runProgram(
  argv: readonly string[],
  prefix: string,
  signal?: AbortSignal,
): Promise<ProgramOutput> {
  const printed = { stdout: `${prefix}.stdout`, stderr: `${prefix}.stderr` }
  const stdout = await open(printed.stdout, 'w')
  const stderr = await open(printed.stderr, 'w')
  try {
    return { ...printed, status: await statusOf(argv, [stdout.fd, stderr.fd], signal) }
  } finally {
    await stdout.close()
    await stderr.close()
  }
}

/** Time limit of one command on one image, after which it is killed. */
const LIMIT_MS = 600_000

function statusOf(
  argv: readonly string[],
  [stdout, stderr]: readonly [number, number],
  signal?: AbortSignal,
): Promise<number> {
  const { program, command, args } = spawned(argv)
  return new Promise((resolve, reject) => {
    const options = { timeout: LIMIT_MS, killSignal: 'SIGKILL' as const, signal }
    const child = spawn(command, args, { stdio: ['ignore', stdout, stderr], ...options })
    child.on('error', (error) => {
      if (signal?.aborted) reject(abortedError(program, signal))
      else reject(ioError(program, error))
    })
    child.on('close', (status, by) => {
      resolve(status ?? BY_SIGNAL + constants.signals[by as NodeJS.Signals])
    })
  })
}

/**
 * How a program is started with arguments that may be any bytes. Node writes every string as UTF-8,
 * so a shell, which gets the bytes as octal numbers, runs it then.
 */
function spawned(argv: readonly string[]): { program: string; command: string; args: string[] } {
  const [program, ...args] = argv
  if (argv.every((one) => Buffer.from(one).equals(encodeText(one)))) {
    return { program, command: program, args }
  }
  // The dot keeps line feeds at the end, which a substitution takes away.
  const set = argv.map((one) => `a=$(printf '${octal(one)}.'); set -- "$@" "\${a%.}"`)
  return { program, command: '/bin/sh', args: ['-c', [...set, 'exec "$@"'].join('\n')] }
}

function octal(text: string): string {
  return [...encodeText(text)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')
}

/** A program's stdout, which is short. */
export async function textOf(argv: readonly string[], signal?: AbortSignal): Promise<string> {
  const { program, command, args } = spawned(argv)
  try {
    return (await promisify(execFile)(command, args, { signal })).stdout
  } catch (error) {
    throwIfAborted(signal, program)
    throw ioError(program, error)
  }
}
