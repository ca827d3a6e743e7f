/** Runs a worker, and ends it when a command takes too long or too much memory. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { MEMORY, SECONDS } from '../support/bounds.ts'
import type { Notice } from './worker.ts'

/** Nothing happens for so long: it waits for what never comes. Seconds. */
const SILENCE = 60
const WORKER = fileURLToPath(new URL('worker.js', import.meta.url))

export interface Watched {
  /** What the worker printed, if it ended by itself and badly. */
  failure?: string
  /** It was ended: a command seemed to go beyond the bounds. */
  bounds: boolean
  /** The last command. */
  last?: Notice
}

/** Lets a worker run for some seconds, or until something is found. */
export function runWorker(corpus: string, seed: number, seconds: number): Promise<Watched> {
  const args = ['--enable-source-maps', WORKER, corpus, String(seed), String(seconds)]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] })
  let last: Notice | undefined
  let heard = Date.now()
  let bounds = false
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text) => {
      output += text
    })
  }
  createInterface({ input: child.stdio[3] as Readable }).on('line', (line) => {
    const notice: Notice = JSON.parse(line)
    heard = Date.now()
    // What is told after a command that took too much is of no interest any more.
    if (!bounds && notice.memory < MEMORY) last = notice
    else end()
  })
  const end = () => {
    bounds = true
    child.kill('SIGKILL')
  }
  const timer = setInterval(() => {
    const used = last ? processorSeconds(child.pid as number) - last.cpu : 0
    if (used > SECONDS || Date.now() - heard > SILENCE * 1000) end()
  }, 100)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status) => {
      clearInterval(timer)
      resolve({ failure: status === 0 || bounds ? undefined : output, bounds, last })
    })
  })
}

/** Time of the processor that a process has used; 0 if it has ended. */
function processorSeconds(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ')
    // utime and stime, in hundredths of a second (proc(5)).
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return 0
  }
}
