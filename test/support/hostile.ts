/** Running the program on images made to do harm: in bounds, and with one line on stderr. */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { isInTime, MEMORY } from './bounds.ts'
import { CLI, runCli } from './cli.ts'
import { THOROUGH } from './effort.ts'
import { poke } from './patch.ts'
import { run } from './qemu.ts'

/**
 * Runs the program in a directory, and measures it: in a quick run in this process, see runCli, whose memory
 * is the test's too and does not count.
 */
export async function measured(cwd: string, args: readonly string[]) {
  if (THOROUGH) return measuredAlone(cwd, args)
  const before = process.cpuUsage()
  const { status, stdout, stderr } = await runCli(args, { cwd })
  const { user, system } = process.cpuUsage(before)
  return { status, stdout, stderr, seconds: (user + system) / 1e6, memory: 0 }
}

/** The same in a process of its own. */
export function measuredAlone(cwd: string, args: readonly string[]) {
  const log = join(cwd, 'time.log')
  const { status, stdout, stderr } = run('env', [
    // Without the modules that tap loads into every process of Node.
    ...['-u', 'NODE_OPTIONS', '-C', cwd],
    ...['time', '--quiet', '--format=%U %S %M', '--output=time.log'],
    ...[process.execPath, CLI, ...args],
  ])
  const [user, system, memory] = readFileSync(log, 'utf8').trim().split(' ').map(Number)
  return { status, stdout, stderr, seconds: user + system, memory }
}

/** Runs `full` in bounds; returns its stderr. */
export async function full(
  t: Test,
  cwd: string,
  status: 0 | 1,
  name: string,
  flags: string[] = [],
): Promise<string> {
  rmSync(join(cwd, 'copy.qcow2'), { force: true })
  const result = await measured(cwd, ['full', ...flags, 'disk.qcow2', 'copy.qcow2'])
  t.equal(result.status, status, `${name}: ${result.stderr}`)
  t.ok(isInTime(result.seconds), `${name}: ${result.seconds} s`)
  t.ok(result.memory < MEMORY, `${name}: ${result.memory} KiB`)
  t.equal(existsSync(join(cwd, 'copy.qcow2')), status === 0, `${name}: the target`)
  return result.stderr
}

/** The program refuses the image in a line, in bounds. */
export async function refused(
  t: Test,
  cwd: string,
  line: string | RegExp,
  name = '',
  flags?: string[],
): Promise<void> {
  const stderr = await full(t, cwd, 1, name, flags)
  const text = typeof line === 'string' ? line.replace(/[[\]\\^$.*+?(){}|]/g, '\\$&') : line.source
  t.match(stderr, new RegExp(`^qcow2-backup: ${text}\n$`), name)
  // No control characters, no characters that turn the direction of writing.
  t.notMatch(stderr.slice(0, -1), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u, `${name}: fit for a terminal`)
}

/** Writes a backing file's name and format into a header, as nothing would that means well. */
export function nameBacking(image: string, name: string, format = 'qcow2'): void {
  const bytes = Buffer.from(name)
  const extension = Buffer.alloc(24)
  extension.writeUInt32BE(0xe2792aca)
  extension.writeUInt32BE(format.length, 4)
  extension.write(format, 8)
  poke(image, 112, Buffer.alloc(512))
  poke(image, 112, extension)
  poke(image, 1024, bytes)
  poke(image, 8, 1024n)
  poke(image, 16, bytes.length)
}
