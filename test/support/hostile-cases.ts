/** Runs commands on hostile images in another process, of which they may make anything. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { HostileCase, Taken } from './hostile-runner.ts'

const RUNNER = fileURLToPath(new URL('hostile-runner.js', import.meta.url))

/** How the commands of a case ended. */
export interface Ended {
  taken: Taken[]
  /** The command at which the process ended, and how; undefined if it did not. */
  crash?: string
}

/**
 * Runs cases one after the other in one process: a process takes as long to start as most commands do. If
 * it ends before they are done, another one goes on with the next case.
 * @returns by the directory of the case
 */
export async function runHostile(cases: readonly HostileCase[]): Promise<Map<string, Ended>> {
  const ended = new Map(cases.map(({ directory }): [string, Ended] => [directory, { taken: [] }]))
  for (let rest = cases; rest.length > 0; ) {
    const { told, crash } = await runProcess(rest)
    for (const one of told) {
      if (one.cpu !== undefined) ended.get(one.directory!)!.taken.push(one as Taken)
    }
    if (crash === undefined) break
    const { directory = rest[0].directory, args = [] } = told.at(-1) ?? {}
    ended.get(directory)!.crash = `${args.join(' ')}: ${crash}`
    rest = rest.slice(rest.findIndex((one) => one.directory === directory) + 1)
  }
  return ended
}

async function runProcess(
  cases: readonly HostileCase[],
): Promise<{ told: Partial<Taken>[]; crash?: string }> {
  const child = spawn(process.execPath, ['--expose-gc', RUNNER], {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    // Without what tap loads into every process of Node.
    env: { ...process.env, NODE_OPTIONS: undefined },
  })
  child.stdin!.on('error', () => {}).end(JSON.stringify(cases))
  const [notices, stderr, [status, signal]] = await Promise.all([
    text(child.stdio[3] as Readable),
    text(child.stderr as Readable),
    once(child, 'close'),
  ])
  const lines = notices.split('\n').filter((line) => line !== '')
  const told = lines.map((line): Partial<Taken> => JSON.parse(line))
  return { told, crash: status === 0 ? undefined : `${signal ?? status} ${stderr}` }
}
