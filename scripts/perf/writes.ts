import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { BackupError } from '../../lib/errors.ts'
import { succeed } from './process.ts'
import type { Stage } from './servers/server.ts'

/** The source, in the checkout: this file runs from its dist/scripts/perf. */
const SOURCE = resolve(import.meta.dirname, '../../../scripts/perf/writes.c')

/** How long writes alone are measured, milliseconds. */
const ALONE = 5000

/** One write; nanoseconds, the first as `process.hrtime` has them. */
export interface Write {
  begun: bigint
  took: bigint
}

/** Random writes of 4 KiB that go on while something else is measured. */
export interface Writes {
  /** Ends them. @returns all of them */
  stop(): Promise<Write[]>
}

/**
 * Begins, and waits until the first writes are done.
 * @param rate maximum writes a second; default: as fast as they go
 */
export async function startWrites(
  uri: string,
  { scratch, signal, atEnd }: Stage,
  rate = 0,
): Promise<Writes> {
  const program = join(scratch, 'writes')
  await succeed(['cc', '-O2', '-o', program, SOURCE, '-lnbd'], signal)
  const child = spawn(program, [uri, `${rate}`], { stdio: ['ignore', 'pipe', 'inherit'], signal })
  let stdout = ''
  child.stdout.setEncoding('latin1').on('data', (text) => {
    stdout += text
  })
  const ended = once(child, 'close')
  ended.catch(() => undefined)
  atEnd(async () => void child.kill())
  await Promise.race([once(child.stdout, 'data'), ended])
  return {
    async stop() {
      child.kill()
      const [status] = await ended
      if (status !== 0) throw new BackupError('IO', 'writes', `ended with ${status}`)
      return parseWrites(stdout)
    },
  }
}

export function parseWrites(text: string): Write[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [begun, took] = line.split(' ').map(BigInt)
      return { begun, took }
    })
}

/**
 * A percentile of the latency of the writes that were under way in a span of time.
 * @returns seconds
 * @throws BackupError IO if there are none
 */
export function latency(writes: Write[], percentile: number, from = 0n, to?: bigint): number {
  const meant = writes
    .filter(({ begun, took }) => begun + took >= from && (to === undefined || begun <= to))
    .map(({ took }) => Number(took) / 1e9)
    .sort((a, b) => a - b)
  if (meant.length === 0) throw new BackupError('IO', 'writes', 'none was under way')
  return meant[Math.min(meant.length - 1, Math.floor((meant.length * percentile) / 100))]
}

/** The latency while nothing else is done, seconds. */
export async function latencyAlone(uri: string, percentile: number, stage: Stage): Promise<number> {
  const writes = await startWrites(uri, stage)
  await pause(ALONE, undefined, { signal: stage.signal })
  return latency(await writes.stop(), percentile)
}
