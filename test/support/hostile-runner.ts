/**
 * Runs commands on a hostile image, one after the other in this process: hostile-runner.js DIRECTORY
 * COMMANDS, the commands a JSON array of argument lists. The cost of each is a line of JSON on
 * descriptor 3. A command that changes images gets a copy of the directory as it was.
 */
import { cpSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../lib/cli/run.ts'

/** The cost of a command. */
export interface Taken {
  args: string[]
  status: number
  stderr: string
  /** Of the processor, seconds. */
  cpu: number
  /** Peak memory of the process until now, KiB. */
  memory: number
}

const [directory, commands] = process.argv.slice(2)
let stderr = ''
process.stderr.write = (text: string | Uint8Array) => {
  if (stderr.length < 4096) stderr += text
  return true
}
process.stdout.on('error', () => {})

for (const args of JSON.parse(commands) as string[][]) {
  const work = join(directory, 'work')
  rmSync(work, { recursive: true, force: true })
  cpSync(join(directory, 'images'), work, { recursive: true })
  process.chdir(work)
  stderr = ''
  const before = process.cpuUsage()
  // The current command, in case it does not end.
  writeSync(3, `${JSON.stringify({ args })}\n`)
  const status = await run(() => args)
  const { user, system } = process.cpuUsage(before)
  const cpu = (user + system) / 1e6
  const memory = process.resourceUsage().maxRSS
  writeSync(3, `${JSON.stringify({ args, status, stderr, cpu, memory } satisfies Taken)}\n`)
  process.chdir(directory)
}
process.exitCode = 0
