/**
 * Runs commands on hostile images, one after the other in this process: stdin is a JSON array
 * of {directory, commands}. The cost of each command is a line of JSON on descriptor 3. What may change
 * images gets a copy of the directory as it was. To be run with --expose-gc.
 */
import { cpSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../lib/cli/run.ts'
import { isInTime } from './bounds.ts'
import { peakMemory, resetPeak } from './peak-memory.ts'

/** An image and what is done with it. */
export interface HostileCase {
  /** Has the image in `images`. */
  directory: string
  /** Argument lists. */
  commands: readonly Command[]
}

export interface Command {
  args: readonly string[]
  /** Nothing of the image is changed, and nothing is left beside it that another such command makes too. */
  reads?: boolean
}

/** The cost of a command. */
export interface Taken {
  directory: string
  args: readonly string[]
  status: number
  stderr: string
  /** Of the processor, seconds. */
  cpu: number
  /** Whether that is within the bounds. */
  inTime: boolean
  /** Peak memory of the process meanwhile, KiB. */
  memory: number
}

let stderr = ''
process.stderr.write = (text: string | Uint8Array) => {
  if (stderr.length < 4096) stderr += text
  return true
}
process.stdout.on('error', () => {})

for (const { directory, commands } of JSON.parse(readFileSync(0, 'utf8')) as HostileCase[]) {
  const work = join(directory, 'work')
  let isFresh = false
  for (const { args, reads = false } of commands) {
    if (!isFresh) {
      rmSync(work, { recursive: true, force: true })
      cpSync(join(directory, 'images'), work, { recursive: true })
    }
    isFresh = reads
    process.chdir(work)
    stderr = ''
    resetPeak()
    const before = process.cpuUsage()
    // The current command, in case it does not end.
    writeSync(3, `${JSON.stringify({ directory, args })}\n`)
    const status = await run(() => [...args])
    const { user, system } = process.cpuUsage(before)
    const cpu = (user + system) / 1e6
    const memory = peakMemory()
    const taken: Taken = { directory, args, status, stderr, cpu, inTime: isInTime(cpu), memory }
    writeSync(3, `${JSON.stringify(taken)}\n`)
    process.chdir(directory)
  }
  rmSync(work, { recursive: true, force: true })
}
process.exitCode = 0
