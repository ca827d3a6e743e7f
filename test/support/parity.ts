/** Our commands beside those of the qemu-img that is installed. */
import { spawnSync } from 'node:child_process'
import type { Test } from 'tap'
import { isQemuImgCommand, runQemuImg } from '../../lib/cli/qemu-img.ts'
import { encodeText } from '../../lib/text.ts'
import { qemuImg } from './qemu.ts'

/** Result of a command; its output with one character for each byte. */
export interface Printed {
  /** Null if a signal ended it. */
  status: number | null
  stdout: string
  stderr: string
}

/** The version of the qemu-img that is installed, as `--qemu-version` takes it. */
export function installedVersion(): string {
  return qemuImg('--version')
    .split('\n')[0]
    .replace(/^qemu-img version /, '')
}

/** That, once. */
export const VERSION = installedVersion()

/** A command of qemu-img, given up after half a minute: it hangs on some broken images. */
export function theirs(args: readonly string[], cwd?: string): Printed {
  const options = { cwd, timeout: 30_000, maxBuffer: 2 ** 30 } as const
  const { error, status, stdout, stderr } = spawnSync('qemu-img', args, options)
  if (error && (error as NodeJS.ErrnoException).code !== 'ETIMEDOUT') throw error
  return { status, stdout: stdout.toString('latin1'), stderr: stderr.toString('latin1') }
}

/** Runs our command, in this process. */
export async function ours(
  [name, ...args]: readonly string[],
  cwd = process.cwd(),
): Promise<Printed> {
  if (!isQemuImgCommand(name)) throw new Error(`${name} is no command`)
  const printed = { stdout: '', stderr: '' }
  const before = process.cwd()
  process.chdir(cwd)
  try {
    const status = await runQemuImg(name, ['--qemu-version', VERSION, ...args], {
      async stdout(text) {
        printed.stdout += encodeText(text).toString('latin1')
      },
      stderr(text) {
        printed.stderr += encodeText(text).toString('latin1')
      },
    })
    return { status, ...printed }
  } finally {
    process.chdir(before)
  }
}

/** Asserts that ours and theirs print the same, on the same streams, with the same status. */
export async function sameAsQemuImg(
  t: Test,
  cwd: string,
  args: readonly string[],
  name = args.join(' '),
): Promise<void> {
  t.strictSame(await ours(args, cwd), theirs(args, cwd), name)
}
